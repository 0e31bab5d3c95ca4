"""Wrong uses of the public functions: each gets one sentence with what was found and what was expected, at once."""

import re

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.distributions import Normal

ROWS = np.random.default_rng(0).integers(0, 2, (40, 6)).astype(np.uint8)
DATA = tv.DataSet("made", ROWS[:30], ROWS[30:], (2, 3), 1.0, "static")
MATRIX = tv.Tensor(np.ones((2, 3)), requires_grad=True)


RAGGED = [[0, 1], [1]]
X = tv.Tensor(ROWS.astype(np.float32))


def made(**changes):
    """A data set with something wrong."""
    return tv.DataSet(**({"name": "a", "train": ROWS, "test": ROWS, "shape": (2, 3), "scale": 1.0} | changes))


def model(**options):
    return tv.VAE(6, **({"hidden": 4, "latent": 2} | options))


def fit(**settings):
    return tv.fit(model(), DATA, quiet=True, **settings)


def evaluate(**options):
    return tv.evaluate(model(), DATA, **options)


def infer(log_joint=lambda z: -(z["a"] ** 2).sum(-1), q=None, **options):
    return tv.infer(log_joint, {"a": tv.Factor(Normal, (2,))} if q is None else q, **({"steps": 2} | options))


def dead():
    """A model with one parameter that is NaN."""
    made = model()
    made.parameters["decoder.0.bias"].data[0] = np.nan
    return made


# Each use, and the sentence that it gets; a sentence is to fit the very use.
USES = [
    (lambda: tv.fit("vae", DATA), "found a str in place of a model; expected one that is built, as tv.VAE("),
    (lambda: tv.fit(tv.VAE, DATA), "found the class VAE in place of a model; expected one that is built"),
    (lambda: tv.fit(DATA, model()), "found a DataSet in place of a model"),
    (lambda: tv.fit(dead(), DATA), "of a vae that are not finite, from which nothing can be le"),
    (lambda: tv.evaluate(dead(), DATA), "of a vae that are not finite, so that no bound"),
    (lambda: dead().encode(ROWS), "of a vae that are not finite, with which nothing can be en"),
    (lambda: dead().generate(3), "of a vae that are not finite, with which nothing can be deco"),
    (lambda: tv.fit(model(), None), "found data of type NoneType; expected a DataSet"),
    (lambda: fit(epochs="3"), "found epochs='3'; expected a whole number"),
    (lambda: fit(epochs=1.5), "found epochs=1.5; expected a whole number"),
    (lambda: fit(epochs=True), "found epochs=True; expected a whole number"),
    (lambda: fit(epoch=1), "found unknown settings: epoch; there are epochs, batch"),
    (lambda: fit(lr="fast"), "found lr='fast'; expected a number"),
    (lambda: fit(weight_prior=1), "found weight_prior=1; expected True or False"),
    (lambda: fit(optimizer=None), "found optimizer=None; expected a name"),
    (lambda: fit(optimizer="Adam"), "found optimizer=Adam; expected one of adam"),
    (lambda: fit(importance_samples=5), "found importance_samples=5 with bound=elbo-b, which has no"),
    (lambda: fit(bound="iwae", importance_samples=0), "found importance_samples=0; expected at least 1"),
    (lambda: fit(bound="iwae", estimator="score"), "found estimator=score with bound=iwae, gradient=path"),
    (lambda: fit(baseline="fitted"), "found baseline=fitted with samples=1 and no estimator; it goes with"),
    (lambda: fit(baseline="fitted", estimator="score"), "found baseline=fitted with samples=1 and score estimator"),
    (lambda: fit(on_epoch=3), "found on_epoch=3; expected a function, or None"),
    (lambda: fit(on_step="x"), "found on_step='x'; expected a function, or None"),
    (lambda: tv.VAE("digits"), "found sizes pixels='digits'"),
    (lambda: model(hidden="20,20"), "found sizes pixels=6, hidden=('20,20',)"),
    (lambda: model(posterior=Normal), "found posterior <class 'tinyvae.distributions.normal.Normal'>; expected one of"),
    (lambda: model(activation="gelu"), "found activation 'gelu'; expected one of"),
    (lambda: model(init="xavier"), "found init 'xavier'; expected one of glorot, aevb"),
    (lambda: model(dtype="float16"), "found dtype 'float16'; expected float32 or float64"),
    (lambda: model(dtype="number"), "found dtype 'number'; expected float32 or float64"),
    (lambda: model(dtype=None), "found dtype None; expected float32 or float64"),
    (lambda: model(device="gpu"), "found device 'gpu'; expected cpu or cuda"),
    (lambda: model(seed="a"), "found seed 'a'; expected a whole number from 0 to 4294967295"),
    (lambda: model(data_mean=np.zeros(3)), "found data_mean of shape (3,) and type float64; expected (6,) numbers"),
    (lambda: model(data_mean="digits"), "found data_mean of shape () and type <U6; expected (6,) numbers"),
    (lambda: model().generate("3"), "found the count of images '3'; expected a whole number, at least 1"),
    (lambda: tv.evaluate("vae", DATA), "found a str in place of a model"),
    (lambda: tv.evaluate(DATA, model()), "found a DataSet in place of a model"),
    (lambda: evaluate(importance_samples="5"), "found importance_samples '5'; expected a whole number, at least 0"),
    (lambda: evaluate(importance_samples=True), "found importance_samples True; expected a whole number"),
    (lambda: evaluate(count=1.5), "found count 1.5; expected a whole number, at least 1"),
    (lambda: evaluate(part="tests"), "found part 'tests'; expected one of train, valid, test"),
    (lambda: evaluate(part="shape"), "found part 'shape'; expected one of train, valid, test"),
    (lambda: evaluate(seed="a"), "found seed 'a'; expected a whole number"),
    (lambda: evaluate(method="ais", start=3), "found start 3; expected one of encoder, prior"),
    (lambda: infer(3), "found 3 in place of the log joint; expected a function of the draws by name"),
    (lambda: infer(q=Normal), "found <class 'tinyvae.distributions.normal.Normal'> in place of the factors; expected"),
    (lambda: infer(q={}), "found {} in place of the factors; expected them by name"),
    (lambda: infer(q={"a": Normal}), "found <class 'tinyvae.distributions.normal.Normal'> for 'a'; expected a factor"),
    (lambda: infer(q={"b": tv.Factor(Normal, (2,))}), "found the latent 'a' in the log joint; q has factors for b"),
    (lambda: infer(samples=1.5), "found samples 1.5; expected a whole number, at least 1"),
    (lambda: infer(steps="a"), "found steps 'a'; expected a whole number, at least 0"),
    (lambda: infer(estimator=3), "found estimator 3; Normal has reparam, grep, score"),
    (lambda: infer(lambda z: np.linalg.norm(z["a"], axis=-1)), "found np.linalg.norm of a tensor with a gradient"),
    (lambda: tv.Factor("normal", (2,)), "found the family 'normal'; expected a class, such as tv.distributions.Normal"),
    (lambda: tv.Factor(Normal, 2), "found a latent of shape 2; expected at least one axis"),
    (lambda: tv.Factor(Normal, (2,), start=np.zeros((5, 7))), "found a start of shape (5, 7); expected the raw"),
    (lambda: tv.grad(3.0, tv.Tensor(1.0, requires_grad=True)), "grad found 3.0 of type float; expected a tensor"),
    (lambda: tv.grad(tv.Tensor(1.0), ["x"]), "grad found 'x' of type str; expected a tensor"),
    (lambda: tv.grad(tv.Tensor(1.0, requires_grad=True), 3), "grad found 3 of type int; expected a tensor"),
    (lambda: tv.grad(tv.Tensor(1.0, requires_grad=True), None), "grad found None of type NoneType; expected a tensor"),
    (lambda: tv.grad(MATRIX @ MATRIX[0], MATRIX), "found shape (2,), made by matmul: reduce it with"),
    (lambda: tv.apply("exp", MATRIX, MATRIX), "exp found 2 inputs; expected 1"),
    (lambda: tv.apply("add", MATRIX), "add found 1 inputs; expected 2"),
    (lambda: MATRIX.exp(3), "exp() takes 1 positional argument but 2 were given"),
    (lambda: tv.testing.check_gradients(3, [1.0]), "found 3 to check; expected a function of tensors"),
    (lambda: tv.testing.check_gradients(lambda a: 3.0, [1.0]), "found 3.0 of type float from the function to check"),
    (lambda: tv.Tensor(None), "found None for a tensor; expected numbers or truth values"),
    (lambda: tv.Tensor([1, None]), "found [1, None] for a tensor; expected numbers or truth values"),
    (lambda: tv.Tensor(1j), "found 1j for a tensor; expected numbers or truth values"),
    (lambda: tv.fit(model(), DATA, out=3, quiet=True), "found 3 for a run folder; expected a path, as text"),
    (lambda: tv.fit(model(), DATA, init_from=3, quiet=True), "found 3 for a run folder; expected a path, as text"),
    (lambda: tv.load(None), "found None for a run folder; expected a path, as text"),
    (lambda: tv.resume(3), "found 3 for a run folder; expected a path, as text"),
    (lambda: tv.use(3), "found 3 for a file to use; expected a path, as text"),
    (lambda: tv.DataSet("a", ROWS, ROWS, 6, 1.0), "found shape=6 of a; expected (rows, columns) of an image"),
    (lambda: tv.DataSet("a", ROWS, ROWS, "2x3", 1.0), "found shape='2x3' of a; expected (rows, columns) of an image"),
    (lambda: tv.Tensor("a"), "found 'a' for a tensor; expected numbers or truth values"),
    (lambda: tv.Tensor(1.0).polygamma(-1), "found polygamma of order -1; expected at least 0"),
    (lambda: tv.Tensor(1.0).polygamma(1.5), "found order 1.5; expected whole numbers"),
    (lambda: tv.Tensor(np.ones((2, 3))).split(0), "found split into 0 parts; expected at least 1"),
    (lambda: tv.stack([]), "found no tensors to stack; expected at least one"),
    (lambda: tv.Noise("a"), "found seed 'a'; expected a whole number from 0 to 4294967295"),
    (lambda: tv.Noise(0).normal((2,), "int32"), "found dtype 'int32'; expected float32 or float64"),
    (lambda: tv.fused("no"), "found fused('no'); expected True or False"),
    (lambda: tv.DataSet(3, ROWS, ROWS, (2, 3), 1.0), "found name=3 and likelihood='continuous-bernoulli' of"),
    (lambda: made(likelihood=3), "found name='a' and likelihood=3 of a data set; expected text for both"),
    (lambda: made(pixels=["static"]), "found pixels=['static'] of a; expected one of dynamic, static"),
    (lambda: made(shape=(-2, -3)), "found shape=(-2, -3) of a; expected (rows, columns) of an image"),
    (lambda: made(train_labels=RAGGED), "found train labels of a of type list; expected an array of whole numbers"),
    (lambda: made(test_mask=RAGGED), "found test mask of a of type list; expected an array of whole numbers"),
    (lambda: made(columns=3), "found columns=3 of a; expected names, as text"),
    (lambda: made(class_names=(1, 2)), "found class_names=(1, 2) of a; expected names, as text"),
    (lambda: made(center=["a"] * 6, spread=["b"] * 6), "found center=['a', 'a', 'a', 'a', 'a', 'a'] of a; expected an"),
    (lambda: tv.data.load(3), "found 3 for the data; expected a path, as text"),
    (lambda: tv.data.load(RAGGED), "found [[0, 1], [1]] for the data; expected a path, as text"),
    (lambda: tv.data.load(b"digits"), "found b'digits' for the data; expected a path, as text"),
    (lambda: tv.data.load("mnist", 3), "found 3 for the folder of data; expected a path, as text"),
    (lambda: tv.data.outline(None), "found None for the data; expected a path, as text"),
    (lambda: tv.data.from_table(ROWS * 1.0, 3.5), "has no column '3.5'"),
    (lambda: tv.evaluate(model(), RAGGED), "found [[0, 1], [1]] for the array, with rows of different lengths"),
    (lambda: tv.complete(model(), RAGGED, "left"), "found [[0, 1], [1]] for the array, with rows of different lengths"),
    (lambda: tv.complete(model(), DATA, RAGGED), "found [[0, 1], [1]] for the mask, with rows of different lengths"),
    (lambda: model().encode(RAGGED), "found [[0, 1], [1]] for x, with rows of different lengths"),
    (lambda: model().encode("a"), "found 'a' for x; expected an array of numbers"),
    (lambda: model().decode(RAGGED), "found [[0, 1], [1]] for z, with rows of different lengths"),
    (lambda: tv.Tensor(RAGGED), "found [[0, 1], [1]] for a tensor, with rows of different lengths; expected numbers"),
    (lambda: tv.matmul(RAGGED, MATRIX), "found [[0, 1], [1]] for a tensor, with rows of different lengths; expected"),
    (lambda: tv.stack(3), "found 3 to stack; expected several tensors: tinyvae.stack([a, b])"),
    (lambda: tv.stack(None), "found None to stack; expected several tensors: tinyvae.stack([a, b])"),
    (lambda: tv.apply(3, MATRIX), "there is no operation 3; there are add"),
    (lambda: tv.apply(["exp"], MATRIX), "there is no operation ['exp']; there are add"),
    (lambda: tv.apply("exp", MATRIX, axis=3), "found the attributes axis=3 for exp; expected others: got an"),
    (lambda: tv.apply("sum", MATRIX), "found the attributes none for sum; expected others: missing 2 required"),
    (lambda: tv.rule(3), "found rule(3, None); expected a name and a function"),
    (lambda: tv.rule("novel", 3), "found rule('novel', 3); expected a name and a function"),
    (lambda: tv.Noise(0, 3), "found the stream 3; expected its name, as text"),
    (lambda: tv.Noise(0, "a", 3), "found counters=3; expected an array whose first element is the step"),
    (lambda: tv.Noise(0).uniform((-1,)), "found shape (-1,) to draw; expected lengths of at least 0"),
    (lambda: tv.noise.permutation(0, "a", 0, "b"), "found the count of a permutation, 'b'; expected a whole number"),
    (lambda: tv.elbo(3, model().q, X, tv.Noise(0)), "found 3 in place of p; expected tv.Joint(prior, likelihood)"),
    (lambda: tv.elbo(model(), 3, X, tv.Noise(0)), "found 3 in place of q; expected a function of x that gives q(z|x)"),
    (lambda: tv.elbo(model(), model().q, X, 3), "found 3 in place of noise; expected tv.Noise(seed)"),
    (lambda: tv.terms_of(model(), model().q, X, 3), "found 3 in place of a draw; expected tv.Draw(tv.Noise(seed))"),
    (lambda: tv.Draw(3), "found 3 in place of the noise of a draw; expected tv.Noise(seed)"),
    (lambda: tv.Draw(tv.Noise(0), bound=3), "found bound 3; expected one of elbo-a, elbo-b"),
    (lambda: tv.Draw(tv.Noise(0), samples="a"), "found samples 'a'; expected a whole number, at least 1"),
    (lambda: tv.Terms(3), "found tv.Terms(3); expected terms by name: tv.Terms(kl=tensor)"),
    (lambda: tv.Batch(3), "found x of type int in a batch; expected a tensor (rows, pixels)"),
    (lambda: tv.Model(6), "found tv.Model itself to build; expected one of its kinds, as tv.VAE(pixels)"),
    (lambda: tv.classify(3, DATA), "found an int in place of a model; expected one that is built"),
    (lambda: tv.models.build_model(3), "found 3 for a configuration of a model; expected that of a model,"),
    (lambda: tv.models.build_model({}), "found {} for a configuration of a model; expected that of a model"),
    (lambda: tv.models.model_for("vae", 3), "found data of type int for a vae; expected a DataSet: tv.data.load(name)"),
    (lambda: tv.testing.check_gradients(lambda a: a.sum(), ["a"]), "found ['a'] for an input of the function to check"),
    (lambda: Normal(MATRIX, MATRIX).log_prob(3), "found x=3 for log_prob of Normal; expected a tensor (..., batch, n)"),
    (lambda: tv.distributions.misfit(3, "grey"), "found likelihood 3; expected one of"),
    (lambda: tv.measure.profile(3), "found int to profile; expected a recorded tv.Tape"),
]  # fmt: skip


@pytest.mark.parametrize(("use", "sentence"), USES, ids=[sentence[:40] for _, sentence in USES])
def test_wrong_use(use, sentence):
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)) as raised:
        use()
    assert "\n" not in str(raised.value)


def test_right_uses_with_numbers_of_numpy():
    """What NumPy computes is as good as a number that was typed, and run folders can hold it."""
    built = tv.VAE(np.int64(6), hidden=np.array([4, 3]), latent=np.int32(2), seed=np.int64(1))
    assert built.config == tv.VAE(6, hidden=[4, 3], latent=2, seed=1).config
    assert all(type(size) is int for size in (built.config["pixels"], *built.config["hidden"], built.config["latent"]))
    records = tv.fit(built, DATA, epochs=np.int64(1), lr=np.float32(0.25), quiet=True)
    assert records == tv.fit(tv.VAE(6, hidden=[4, 3], latent=2, seed=1), DATA, epochs=1, lr=0.25, quiet=True)
    found = tv.evaluate(built, DATA, importance_samples=np.int64(3), count=np.int64(5))
    assert found == tv.evaluate(built, DATA, importance_samples=3, count=5)
    assert built.generate(np.int64(2)).shape == (2, 6)
