"""What a reader does with the page, in a real browser: by mouse and by keyboard, in light and dark, wide and narrow."""

import dataclasses
import re

import numpy as np
import pytest
from browser import Watched, coloured
from PIL import Image

import tinyvae as tv
from tinyvae.explorer.contents import contents
from tinyvae.explorer.writing import page
from tinyvae.models import model_for

pytestmark = pytest.mark.browser

EVIL = "</script><b>evil</b>"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pages of a VAE, of a model whose label is chosen, and of one that is given a half."""
    folder, data = tmp_path_factory.mktemp("pages"), tv.data.load("digits-dynamic")
    evil = dataclasses.replace(data, name=f"{EVIL}-dynamic", class_names=tuple(f"{n}{EVIL}" for n in range(10)))
    found = {}
    for name, of, options in (("vae", data, {"latent": 12}), ("m2", evil, {"latent": 3}),
                              ("cvae", data, {"latent": 3, "given": "quadrants:2"})):
        model = model_for(name, of, hidden=50, **options)
        tv.fit(model, of, epochs=3, lr=3e-3)
        found[name] = folder / f"{name}.html"
        found[name].write_text(page(*contents(model, of, EVIL if name == "m2" else "run")))
    return found


def state(window):
    return window.value("({z: tinyvae.here.z, index: tinyvae.here.datum.index, y: tinyvae.here.datum.y})")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["vae", "m2", "cvae"])
def test_it_can_be_read_by_everyone_on_any_screen(browser, files, name, scheme):
    """axe finds nothing, a narrow screen does not scroll sideways, and the page asks for and says nothing."""
    from axe_playwright_python.sync_playwright import Axe

    with Watched(browser, files[name], scheme, width=320) as window:
        if name == "vae":
            window.page.get_by_text("The other 4 latents").click()
        if name != "cvae":
            window.page.get_by_role("button", name="Left half").click()
            window.page.get_by_role("button", name="Show answers").click()
            window.page.wait_for_selector("#answers figure:nth-child(7)")
        wide, allowed = window.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= allowed
        found = Axe().run(window.page)
        assert found.violations_count == 0, found.generate_report()


def test_the_policy_forbids_all_but_its_own_script(browser, files):
    with Watched(browser, files["vae"]) as window:
        policy = window.page.locator("meta[http-equiv]").get_attribute("content")
        assert re.fullmatch(r"default-src 'none'; script-src 'sha256-[\w+/]{43}='; style-src 'sha256-[\w+/]{43}='; "
                            r"base-uri 'none'; form-action 'none'", policy)
        window.page.evaluate("""() => document.body.append(
            Object.assign(document.createElement("script"), {textContent: "evil = 1"}))""")
        assert window.value("typeof evil") == "undefined"
        assert any("Content Security Policy" in fault for fault in window.faults)
        window.faults.clear()


def test_names_are_text(browser, files):
    with Watched(browser, files["m2"]) as window:
        assert window.page.title() == f"{EVIL}: b>-dynamic"  # of data that have a path the last part is shown
        assert window.text("h1") == f"{EVIL}: b>-dynamic"
        assert EVIL in window.text("#labels")
        assert EVIL in window.text("#legend")
        assert window.value("Array.from(document.querySelectorAll('b'), (b) => b.textContent)") == list("0123456789")


def test_the_pointer_decodes_where_it_is(browser, files):
    """A drag to a place of the map gives z that place, leaves the other latents, and decodes it."""
    with Watched(browser, files["vae"]) as window:
        before, image = state(window), window.picture("#decoded")
        box = window.page.locator("#map").bounding_box()
        window.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        window.page.mouse.down()
        window.page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.2, steps=3)
        window.page.mouse.up()
        after = state(window)
        moved = [j for j in range(12) if after["z"][j] != before["z"][j]]
        kl = window.value("tinyvae.run.kl")
        assert moved == sorted(np.argsort(kl)[-2:].tolist())
        first = f"{after['z'][np.argmax(kl)]:.2f}".replace("-", "−")
        assert f"z{np.argmax(kl)} = {first}" in window.text("#place")
        assert window.picture("#decoded") != image
        decoded = window.value("tinyvae.decode(tinyvae.here.z, tinyvae.here.datum)")
        assert window.picture("#decoded")[::4] == [int(255 * v + 0.5) for v in decoded]
        window.page.get_by_role("button", name="Back to the image").click()
        np.testing.assert_allclose(state(window)["z"], before["z"])
        window.page.locator("#axes").select_option(label="the first two principal components")
        window.page.locator("#map").press("ArrowRight")
        step = np.subtract(state(window)["z"], before["z"])
        direction = window.value("tinyvae.run.directions")[:12]
        np.testing.assert_allclose(step / np.linalg.norm(step), direction, atol=1e-6)


def test_everything_by_keyboard(browser, files):
    """No mouse: the map, a datum, a slider, play and pause, a drawing, a completion, each reached by Tab."""
    with Watched(browser, files["vae"]) as window:
        keys, stops = window.page.keyboard, []
        for _ in range(150):
            keys.press("Tab")
            stops.append(window.value("document.activeElement.id || document.activeElement.textContent.trim() || "
                                      "document.activeElement.getAttribute('aria-label')"))
        every = window.value("""Array.from(document.querySelectorAll("main :is(button, input, select, [tabindex])"))
            .filter((e) => e.checkVisibility() && !e.disabled)
            .map((e) => e.id || e.textContent.trim() || e.getAttribute("aria-label"))""")
        assert set(every) <= set(stops)

        def press(selector, *names):
            window.page.locator(selector).focus()
            for name in names:
                keys.press(name)

        before = state(window)
        press("#map", "ArrowRight", "ArrowUp")
        assert state(window)["z"] != before["z"]
        press("#map", *["ArrowRight"] * 8, "Enter")
        assert state(window)["index"] != 0
        press("#number", "Control+a", "7", "Enter")
        assert state(window)["index"] == 7
        assert "Test datum 7, label" in window.text("#datum-about")
        j = np.argmax(window.value("tinyvae.run.kl"))
        press(f"#z{j}", "End")
        np.testing.assert_allclose(state(window)["z"][j], window.value(f"tinyvae.run.high[{j}]"), rtol=1e-6)
        press("#play", "Enter")
        assert window.text("#play") == "Pause"
        window.page.wait_for_timeout(200)
        press("#play", "Enter")
        assert window.text("#play") == "Play"
        press("#way", "End")
        assert window.text("#between-caption") == "100 % of the way"
        ends = window.picture("#between")
        press("#way", "Home")
        assert window.picture("#between") != ends
        press("#drawing", " ", *["ArrowDown"] * 6, " ")
        assert state(window)["index"] is None
        assert "Your own image" in window.text("#datum-about")
        assert np.ptp(window.value("tinyvae.here.datum.grey")) > 0.5
        press("#hiding", " ", "ArrowDown", "ArrowDown", " ")
        assert window.text("#hidden-about") == "3 of 64 pixels are hidden. Row 7, column 5 is hidden."
        press("#complete", "Enter")
        window.page.wait_for_selector("#answers figure:nth-child(7)")


def test_a_play_moves_one_latent_and_pauses(browser, files):
    with Watched(browser, files["vae"]) as window:
        j = int(np.argmax(window.value("tinyvae.run.kl")))
        button = window.page.get_by_role("button", name=f"Play z{j} from")
        before = state(window)["z"]
        button.click()
        window.page.wait_for_timeout(300)
        button.click()
        paused = state(window)["z"]
        assert [k for k in range(12) if paused[k] != before[k]] == [j]
        window.page.wait_for_timeout(200)
        assert state(window)["z"] == paused


def test_a_label_is_given_to_the_decoder(browser, files):
    with Watched(browser, files["m2"]) as window:
        image, z = window.picture("#decoded"), state(window)["z"]
        other = (state(window)["y"] + 3) % 10
        window.page.locator(f"input[type=radio][value='{other}']").check()
        assert state(window) == {"z": z, "index": 0, "y": other}
        assert window.picture("#decoded") != image
        texts = window.page.locator(".bars dd:not(.track)").all_inner_texts()
        shares = [float(text.removesuffix(" %")) for text in texts]
        assert len(shares) == 10
        assert abs(sum(shares) - 100) < 1


@pytest.mark.parametrize("paper", ["black", "white"])
def test_an_own_image_is_laid_as_the_data_are(browser, files, tmp_path, paper):
    """A test image, enlarged, moved and on white or black paper, comes back as the test image."""
    with Watched(browser, files["vae"]) as window:
        frame = window.value("tinyvae.run.frame")
        assert (frame["ground"], frame["whole"]) == (0, False)
        grey = np.array(window.value("tinyvae.testDatum(1).grey")).reshape(8, 8)
        large = np.zeros((400, 380))
        large[150:310, 40:200] = grey.repeat(20, 0).repeat(20, 1)
        file = tmp_path / f"{EVIL.replace('/', '')}.png"
        Image.fromarray(np.rint(255 * (1 - large if paper == "white" else large)).astype(np.uint8)).save(file)
        window.page.locator("#file").set_input_files(file)
        window.page.get_by_text("Taken:").wait_for()
        found = np.array(window.value("tinyvae.here.datum.grey")).reshape(8, 8)
        # the frame is the median of the data's, so this image lies a part of a pixel beside its place
        shifts = [np.corrcoef(np.roll(found, (i, j), (0, 1)).ravel(), grey.ravel())[0, 1]
                  for i in (-1, 0, 1) for j in (-1, 0, 1)]
        print(f"correlation with the image: {shifts[4]:.3f}")
        assert np.argmax(shifts) == 4
        assert shifts[4] > 0.8
        assert set(window.value("tinyvae.here.datum.x")) == {0, 1}
        bad = tmp_path / "bad.png"
        bad.write_text("no image")
        window.page.locator("#file").set_input_files(bad)
        window.page.get_by_text("bad.png is no image").wait_for()


def test_a_drawing_by_mouse_is_laid_as_the_data_are(browser, files):
    """A bar at the left edge of the drawing comes to the middle, as high as the data are, and is not cut off."""
    with Watched(browser, files["vae"]) as window:
        window.page.locator("#drawing").scroll_into_view_if_needed()
        box = window.page.locator("#drawing").bounding_box()
        window.page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.1 * box["height"])
        window.page.mouse.down()
        window.page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.5 * box["height"], steps=4)
        window.page.mouse.up()
        frame, grey = window.value("tinyvae.run.frame"), np.array(window.value("tinyvae.here.datum.grey")).reshape(8, 8)
        assert abs(grey.sum(0) @ (np.arange(8) + 0.5) / grey.sum() - frame["column"]) < 0.1
        assert abs(grey.max(1).sum() / grey.max() - 8 * frame["size"]) < 0.5  # rows
        tailed = np.zeros((24, 24))  # heavy above, with a tail whose end the centre of mass alone would cut off
        tailed[:2, :12], tailed[2:20, 0] = 1, 1
        found = window.value("(values) => tinyvae.likeTheData({values: Float64Array.from(values), rows: 24, "
                             "columns: 24})", tailed.reshape(-1).tolist())
        per_pixel = 8 * frame["size"] / 20  # its 20 rows become as many as the data have
        assert np.sum(found) == pytest.approx((24 + 18) * per_pixel**2, rel=0.15)


def test_images_in_colour(browser, tmp_path):
    """They are shown in their colours, an own file keeps its colours, and a pixel is hidden with all its channels."""
    data = coloured(tv.data.load("digits-gray"))
    model = model_for("vae", data, hidden=30, latent=3, likelihood="continuous-bernoulli")
    tv.fit(model, data, epochs=2, lr=3e-3)
    file = tmp_path / "page.html"
    file.write_text(page(*contents(model, data, "run")))
    with Watched(browser, file) as window:
        x = np.array(window.value("tinyvae.here.datum.x")).reshape(64, 3)
        assert np.ptp(x, axis=1).max() > 0.1
        shown = np.array(window.picture("#read")).reshape(64, 4)[:, :3]
        np.testing.assert_allclose(shown, 255 * x, atol=0.51)
        red = np.zeros((60, 60, 3), np.uint8)
        red[10:50, 25:35] = 250, 30, 30
        Image.fromarray(red).save(tmp_path / "red.png")
        window.page.locator("#file").set_input_files(tmp_path / "red.png")
        window.page.get_by_text("Taken:").wait_for()
        own = np.array(window.value("tinyvae.here.datum.x")).reshape(64, 3)
        assert own[:, 0].max() > 0.5
        np.testing.assert_allclose(own[:, 1:], own[:, [0, 0]] * 30 / 250, atol=1e-6)
        window.page.get_by_role("button", name="Left half").click()
        assert window.text("#hidden-about") == "32 of 64 pixels are hidden."
        window.page.get_by_role("button", name="Show answers").click()
        window.page.wait_for_selector("#answers figure:nth-child(7)")
        answer = np.array(window.picture("#answers figure:nth-child(1) canvas")).reshape(8, 8, 4)[:, 4:, :3]
        np.testing.assert_allclose(answer, 255 * own.reshape(8, 8, 3)[:, 4:], atol=0.51)


def test_what_is_observed_stays_in_a_completion(browser, files):
    with Watched(browser, files["vae"]) as window:
        window.page.get_by_role("button", name="Upper half").click()
        window.page.get_by_role("button", name="Show answers").click()
        window.page.wait_for_selector("#answers figure:nth-child(7)")
        x = np.array(window.value("tinyvae.here.datum.x"))
        answers = [np.array(window.picture(f"#answers figure:nth-child({i}) canvas"))[::4] for i in range(1, 7)]
        for answer in answers:
            assert (answer[32:] == 255 * x[32:]).all()
        assert len({tuple(answer) for answer in answers}) == 6
        window.page.get_by_role("button", name="Nothing").click()
        box = window.page.locator("#hiding").bounding_box()  # by mouse: four pixels of the second row
        window.page.mouse.move(box["x"] + 2.5 / 8 * box["width"], box["y"] + 1.5 / 8 * box["height"])
        window.page.mouse.down()
        window.page.mouse.move(box["x"] + 5.5 / 8 * box["width"], box["y"] + 1.5 / 8 * box["height"], steps=20)
        window.page.mouse.up()
        assert window.text("#hidden-about") == "4 of 64 pixels are hidden."
        hatched = np.array(window.picture("#hiding")).reshape(8, 6, 8, 6, 4)
        colours = np.ptp(hatched[..., :3].astype(int), axis=-1).max((1, 3))  # a shown pixel is grey, without a hue
        assert np.argwhere(colours > 50).tolist() == [[1, 2], [1, 3], [1, 4], [1, 5]]


def test_a_conditional_model_answers_to_its_condition(browser, files):
    """The given half stays in all answers, and completion by painting is not offered."""
    with Watched(browser, files["cvae"]) as window:
        assert window.text("#samples-title") == "Answers to what is given"
        assert window.page.locator("#completion").is_hidden()
        x = np.array(window.value("tinyvae.here.datum.x")).reshape(8, 8)
        pictures = [window.picture(f"#drawn button:nth-child({i}) canvas") for i in (1, 2, 3)]
        answers = [np.array(picture)[::4].reshape(8, 8) for picture in pictures]
        for answer in answers:
            assert (answer[:, :4] == 255 * x[:, :4]).all()
        assert (answers[0] != answers[1]).any()
