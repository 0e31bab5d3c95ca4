# %% [markdown]
# # A5. How it is made fast
#
# The chapters write a training step as operations on whole arrays, one line for each equation, and a step that runs
# like this spends most of its time on things that no equation mentions. This page shows where the time goes, and what
# tinyvae does about it: fused kernels, a recorded step, a team of threads, a graph on the GPU. And it shows why
# recording and threads change no bit of the results.
#
# ## What you need to know
#
# A number of 32 bits takes 4 bytes; a result of $+$ or $\times$ is rounded to the nearest such number, and one of
# $\exp$ to a number close by. A
# processor computes far faster than memory delivers, so an operation on a large array mostly waits for it. A *kernel*
# is a compiled loop over arrays. A *launch* is one run of an operation, and a step is a list of launches (page A6).
#
# > **Claim.** A step of $n$ launches with $F$ arithmetic operations and $B$ bytes of traffic takes about
# >
# > $$T \approx \max\!\left( \frac{F}{\pi},\, \frac{B}{\beta} \right) + n\,t_0,$$
# >
# > where $\pi$ is the peak of the processor, $\beta$ the bandwidth of memory and $t_0$ what passes between two
# > launches. Fusing lowers $n$ and $B$, recording lowers $t_0$, threads raise $\pi$ and $\beta$. Recording and
# > threads change no *bit* of the result, as long as each number is made by the same operations in the same order.

# %%
import ctypes
import json
import math
from pathlib import Path

import numpy as np
from tinyvae_kernels.cpu.activations import bias_grad
from tinyvae_kernels.cpu.runtime.team import team

import tinyvae as tv
from tinyvae.engine import table
from tinyvae.lessons.book import exercise, show
from tinyvae.pictures.page import INK, LABELS, PALE, TEST, TRAIN, new_figure, plain_axes
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

RESULTS = Path(tv.__file__).parents[1] / "benchmarks" / "results"


def measured(name):
    """What a results file of the repository holds."""
    if not (file := RESULTS / f"{name}.json").exists():
        print(f"These numbers stand in a clone of the repository: {file.name}")
        return {}
    return json.loads(file.read_text())


# %% [markdown]
# ## The newspaper round
#
# A boy delivers two newspapers to the houses of a village. On the first morning he carries the map, looks up each
# house, and goes twice, once for each paper. It takes him until noon, and hardly any of it is putting a paper into a
# letter box. He then does three things. He takes both papers along and goes once. He writes the houses down in order
# as he goes, and the next day he needs no map; on two more mornings he holds the list against it, house by house, and
# from then on trusts the list. At last he shares the village with his sister, street by street. She has a bundle of
# her own, and whoever has finished takes a house from the end of the other's list. In each letter box lies the same
# paper as before.
#
# The way is traffic with memory, and one way for two papers is a fused kernel. The map is Python, the list a recorded
# step, the two mornings its verification, the sister a second thread. Only one thing must not be shared out: if both
# collect money and each *rounds* the sum to whole coins, then the total depends on who collected where.
#
# ## Where the time goes
#
# These are measured steps of training, from `benchmarks/results/step.json`: gather the batch (its pixels are fixed),
# draw normals, forward, backward, check for NaN, Adam. Each stands in four forms. "Twins" are the readable
# operations, launched one by one from Python; "kernels" are the fused ones, still launched from Python; "replayed" is
# the recorded step; and "products alone" are the step's eleven matrix products by NumPy, without anything else.

# %%
FORMS = {"eager, twins": LABELS[1], "eager, kernels": LABELS[2], "replayed": LABELS[0],
         "products alone": PALE}
step = measured("step")
kept = [row for row in step.get("rows", [])
        if row["pixels"] == "fixed" and row["step"] in FORMS]
microseconds = {(row["size"], row["batch"], row["step"]): row["microseconds"]
                for row in kept}
sizes = list(dict.fromkeys(key[:2] for key in microseconds))
print("microseconds a step\n")
print(f"{'net, batch':<18}" + "".join(f"{form:>16}" for form in FORMS))
for size in sizes:
    print(f"{size[0] + f', {size[1]:,}':<18}"
          + "".join(f"{microseconds[*size, form]:>16,.0f}" for form in FORMS))
if step:
    machine = step["environment"]
    print(f"\nMedians of {kept[0]['rounds']} rounds on {machine['cores']} cores of "
          f"{machine['cpu']}; lower is better.")

# %% tags=["drawing"]
ratio = {key: value / microseconds[*key[:2], "replayed"]
         for key, value in microseconds.items()}
figure = new_figure(7, 3)
axes = figure.add_subplot()
for i, (form, color) in enumerate(FORMS.items()):
    times = [ratio[*size, form] for size in sizes]
    axes.bar(np.arange(len(sizes)) + 0.2 * (i - 1.5), times, 0.18, color=color, label=form)
    for place, value in enumerate(times):
        axes.text(place + 0.2 * (i - 1.5), value, f"{value:.1f}", fontsize=7, color=INK,
                  ha="center", va="bottom")
axes.set_xticks(range(len(sizes)), [f"{size}\nbatch {batch:,}" for size, batch in sizes])
plain_axes(axes, "The time of a step, as a multiple of the replayed one (lower is better)")
axes.grid(visible=False, axis="x")
axes.legend(fontsize=8, frameon=False)
figure.tight_layout()
if sizes:
    small, large = (pick(sizes, key=lambda size: microseconds[*size, "replayed"])
                    for pick in (min, max))
    twins, kernels, products = "eager, twins", "eager, kernels", "products alone"
    alone = [ratio[*size, products] for size in sizes]
    show(figure, f"Bars for {len(sizes)} sizes of net. Launched one by one, the step of "
                 f"the smallest takes {ratio[*small, kernels]:.1f} times as long with "
                 f"kernels as replayed, and {ratio[*small, twins]:.1f} times with twins; "
                 f"that of the largest, batch {large[1]:,}, {ratio[*large, kernels]:.1f} "
                 f"and {ratio[*large, twins]:.1f} times. The products alone take "
                 f"{min(alone):.1f} to {max(alone):.1f} times as long as a replayed step.")

# %% [markdown]
# Two things slow a step down, and the size decides which. The small net is slow because of $n\,t_0$: its arrays fit
# into the nearest cache, and Python takes longer to launch an operation than the operation takes. There replaying
# helps most. The large net is slow because of $B/\beta$: its arrays travel, and NumPy's operations use one thread.
# There the fused kernels help most. At the end a step takes about as long as its matrix products alone. It may even
# take less time than these, as the second step here does: the products alone are NumPy's, and the step multiplies with
# kernels of its own.
#
# ## Fewer passes: fused kernels
#
# A layer computes $y_{ij} = \tanh(x_{ij} + b_j)$. Written with two operations, as in the readable twin, the sum goes
# to memory and comes back:
#
# $$t_{ij} = x_{ij} + b_j, \qquad y_{ij} = \tanh t_{ij}$$
#
# ```{line} tinyvae/nn/activations.py
# return ACTIVATIONS[kind].value(pre + bias)
# ```
#
# The kernel does both while the number is in a register, so that $t$ never exists as an array:
#
# $$y_{ij} = \tanh(x_{ij} + b_j)$$
#
# ```{line} kernels/tinyvae_kernels/cpu/activations.py
# out[i, j] = tanh(pre[i, j] + bias[j])
# ```
#
# A tape counts what that saves. Here is a whole training step on digits, recorded with the twins and with the
# kernels. The arithmetic stays the same, and there are fewer launches and less traffic.

# %%
data = tv.data.load("digits-static")


def recorded(fused):
    """The tape of a training step."""
    with tv.fused(fused):
        training = Training(tv.VAE(64, 200, 10), data, Settings(batch=100))
        training.begin_epoch()
        for _ in range(3):  # one is recorded, two are compared
            training.step()
    return training.step_now().program.tape(100)


tapes = {"twins": recorded(fused=False), "kernels": recorded(fused=True)}
for name, tape in tapes.items():
    launches = tape.working()
    megabytes = sum(map(table.traffic, launches)) / 1e6
    million = sum(map(table.flops, launches)) / 1e6
    print(f"{name:<8}{len(launches):>4} launches, {megabytes:.2f} MB of traffic, "
          f"{million:.1f} million arithmetic operations")

# %% [markdown]
# On the processor, fusing is the one item on this page that does change bits: a kernel's own $\tanh$ rounds in other
# places than NumPy's. So each kernel is held against the exact value. In units of the last binary digit, the largest
# errors found, from `benchmarks/results/kernels.json`:

# %%
print("float32               twin   kernel   units of the last digit, at most")
errors = [row for row in measured("kernels").get("errors", []) if row["dtype"] == "float32"]
for case in ("tanh", "relu", "softplus"):
    of = {row["rung"]: row["error_max_units"] for row in errors
          if row["operation"] == "bias_activation" and row["case"] == case}
    if of:
        print(f"{'bias and ' + case:<22}{of['twin']:>4.2f}{of['kernel']:>9.2f}")

# %% [markdown]
# ## Nothing in between: record, verify, replay
#
# The recorded step is a list of kernels over arrays that stay where they are (page A6). For the processor such a
# kernel is five numbers: the address of its machine code, three addresses of its arguments, and into how many parts
# it may be cut. So the whole step is a table with a row for each run of a kernel,
#
# $$\text{step} = \begin{pmatrix} \text{code}_1 & p_1 & n_1 & s_1 & \text{parts}_1 \\ & & \vdots & & \\
#   \text{code}_m & p_m & n_m & s_m & \text{parts}_m \end{pmatrix}$$
#
# ```{line} kernels/tinyvae_kernels/cpu/runtime/jobs.py
# self.table = np.array([job.row for job in jobs], np.int64)
# ```
#
# and `tape.replay()` hands it over in one call. Between two kernels no Python runs, and nothing is allocated.

# %%
tape = tapes["kernels"]
tape.replay()
programs = [call for call in tape.calls if hasattr(call, "table")]
rows = sum(len(call.table) for call in programs)
print(f"launches: {len(tape.working())}\n"
      f"calls from Python in a replay: {len(tape.calls)}\n"
      f"rows of the table: {rows}, with {programs[0].table.shape[1]} numbers each")

# %% [markdown]
# The table has more rows than the step has launches, because some launches run two kernels. To draw normal noise, one
# makes random words and the next makes normal numbers of them; a product may first transpose a matrix; the check for
# NaN first sums and then decides.
#
# A list that is trusted must be right. `Program` therefore makes the first two replays beside the same step run anew,
# from the same state, and compares the bits of everything it changed. And the step draws noise, which has to be new
# each time. A generator with a hidden state would make that hard to compare and to resume. tinyvae's noise has no
# state: each number is made of words that are a function of its address,
#
# $$(w_0, w_1, w_2, w_3) = \mathrm{philox}\bigl( (\lfloor \text{index} / 4 \rfloor, \text{site}, \text{step},
#   \text{attempt}),\ (\text{seed}, \text{stream}) \bigr)$$
#
# ```{line} tinyvae/engine/noise.py
# four = philox((block, site, step, attempt), (seed, stream_number(stream)), xp)
# ```
#
# with four random words for each address. The step's number stands in an array that the step itself counts up. A
# replay, a run anew, a training resumed tomorrow and another device look up the same address and draw the same
# numbers.
#
# ## Predict, then run
#
# Why is "nearly the same" not good enough? Then two programs that should agree could be compared only to some
# tolerance, and a tolerance hides small mistakes. But to have the same bits is a strict demand, for addition on a
# computer is commutative and not associative: $(a + b) + c$ and $a + (b + c)$ are rounded in different places. Take
# 1,000 normal numbers in float32, and add them up one by one, in 1,000 random orders. **How many different sums come
# out of the 1,000 orders?**

# %% tags=["answer"]
draws = np.random.default_rng(0)
numbers = draws.normal(size=1000).astype(np.float32)
orders = (draws.permutation(numbers) for _ in range(1000))
sums = np.array([np.cumsum(order, dtype=np.float32)[-1] for order in orders])
exact = math.fsum(numbers)
unit = np.spacing(np.float32(abs(exact)))  # from one float32 number to the next
errors = (sums - exact) / unit
print(f"{len(set(sums.tolist()))} different sums; the exact one is {exact:.7f}")
print(f"the worst is {np.abs(errors).max():.0f} units of the last digit away, "
      f"of {unit:.1e} each")

# %% tags=["outcome"]
figure = new_figure(7, 2.4)
axes = figure.add_subplot()
places, counts = np.unique(errors, return_counts=True)
axes.bar(places, counts, 0.8, color=TRAIN, label="a sum that came out")
axes.axvline(0, color=TEST, linewidth=1.5, label="the exact sum")
plain_axes(axes, "The same 1,000 numbers, added in 1,000 orders",
           x="error of the sum, units of its last digit", y="orders")
axes.legend(fontsize=8, frameon=False)
figure.tight_layout()
show(figure, f"The errors of {len(sums):,} sums of the same numbers, in a bell of "
             f"{len(places)} values from {places.min():+.0f} to {places.max():+.0f} units "
             f"of the last digit, with the mean {errors.mean():+.1f} and the standard "
             f"deviation {errors.std():.1f}.")

# %% [markdown]
# Each addition rounds the sum to the next number that float32 has, and where depends on what was added before. So the
# sum wanders over many neighbouring numbers. In a training this is everywhere: a gradient is a sum over the
# batch, a product of matrices is a sum for each element. If two threads share *a sum*, each adds its half, and then
# the halves are added, which is another order. A machine with four cores would then train another model than one with
# two, and a thread that comes late could change the result of a run.
#
# ## A team of threads
#
# So the team never shares a sum. It shares the *elements* of a result: the numbers from the first to the last of a
# part belong to one thread, which computes each of them alone, in an order of its terms that does not depend on the
# parts.
#
# $$\text{part } i \text{ of } m: \quad \left\lfloor \frac{n\,i}{m} \right\rfloor \le j <
#   \left\lfloor \frac{n\,(i + 1)}{m} \right\rfloor$$
#
# ```{line} kernels/tinyvae_kernels/cpu/runtime/shares.py
# return count * part // parts, count * (part + 1) // parts
# ```
#
# The gradient by a bias is such a sum, over the rows of a batch, one for each column. Its kernel cuts columns. Here
# it runs in 1 to 7 parts, the last part first, and beside it the tempting way: each part sums its *rows*.

# %%
g = draws.normal(size=(300, 512)).astype(np.float32)
native = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2)


def by_columns(parts):
    out = np.full(512, np.nan, np.float32)
    for job in bias_grad.bind(g, out).jobs:
        code, p, n, s, _ = job.row
        for part in reversed(range(parts)):
            native(code)(p, n, s, part, parts)
    return out


def by_rows(parts):
    halves = [np.cumsum(block, axis=0)[-1] for block in np.array_split(g, parts)]
    return np.cumsum(halves, axis=0)[-1]


print("of 512 numbers, how many have other bits in 1 to 7 parts than in one")
for cut in (by_columns, by_rows):
    found = [cut(parts) for parts in range(1, 8)]
    differ = [int((one.view(np.int32) != found[0].view(np.int32)).sum()) for one in found]
    print(f"{cut.__name__:<12}{differ}")

# %% [markdown]
# Sharing costs time, too: what another core has written must be fetched from its cache. So a job is cut only if it is
# large, with $W$ simple operations into
#
# $$m = \min\!\left( 4 \cdot \text{threads},\ \left\lfloor \frac{W}{8192} \right\rfloor \right)
#   \text{ parts, if these are at least 8}$$
#
# ```{line} kernels/tinyvae_kernels/cpu/runtime/team.py
# pieces = min(self.most, int(work / GRAIN))
# return pieces if pieces >= LEAST else 1
# ```
#
# There are more parts than threads, because the system may stop a thread for a while: then the others take its parts,
# and only the one it has begun is late. A single thread has nobody to share with, and cuts no job. In the step from
# above most jobs stay with the thread that leads, even if others wait for work:

# %%
parts = np.array([row[4] for call in programs for row in call.table])
print(f"{np.sum(parts > 1)} of {len(parts)} jobs are shared on this machine, "
      f"whose team has {team.count} thread{'s' * (team.count > 1)}")

# %% [markdown]
# ## What the GPU does
#
# The claim holds on a GPU, with other numbers. Its peak $\pi$ is so high that the arithmetic of a small step takes
# next to no time, while each kernel takes about a microsecond to begin and end, and longer if the host starts it.
# tinyvae lets CUDA record the list of launches as *one graph*, at its second run, and from then on starts only that:
#
# $$n \text{ launches by the host} \;\to\; 1 \text{ graph of } n \text{ kernels}$$
#
# ```{line} kernels/tinyvae_kernels/cuda/runtime/jobs.py
# self._run = driver.current.graph(self._launches)
# ```
#
# These are steps of 784-500-20 on one card, from `benchmarks/results/gpu-h100.json`. "Arithmetic" is the time that
# the products' operations would take at the card's measured peak; "products" is what they take, alone.

# %%
gpu = measured("gpu-h100")
if gpu:
    peak = gpu["peaks"]["float32_teraflops"]
    shown = [row for row in gpu["steps"] if row["precision"] == "float32"]
    print(f"{gpu['card']['name']}, float32, peak {peak:.1f} TFLOP/s\n"
          f"microseconds a step, lower is better, medians of {shown[0]['rounds']} rounds\n")
    print(f"{'batch':>7}{'arithmetic':>13}{'products':>11}{'step':>9}{'launches':>11}")
    for row in shown:
        arithmetic = row["products_microseconds"] * row["products_teraflops"] / peak
        products, whole = row["products_microseconds"], row["gpu_microseconds"]
        print(f"{row['batch']:>7,}{arithmetic:>13,.0f}{products:>11,.0f}{whole:>9,.0f}"
              f"{row['kernels']:>11}")
    alone = sorted(gpu["launches_batch_100_us"], key=lambda pair: pair[1])
    print("\nThe shortest and the longest launch at batch 100, each alone:")
    for name, time in (alone[0], alone[-1]):
        print(f"  {name}: {time:.1f} microseconds")

# %% [markdown]
# At batch 100 the arithmetic is a small part of the step: most units of the card are idle while small kernels begin and
# end. At the largest batch it is most of the step. A GPU computes very many numbers at once, and gains
# little where there are few. No sum on the card is made by threads that add to one number in the order in which they
# happen to come, so a run there repeats itself bit for bit. The bits of the CPU and of the card do differ, because
# their products add in different orders; the noise is the same integers on both.
#
# ## Exercises
#
# The functions `houses_of` and `traffic` return `0, 0` so far, `batch_where_arithmetic_wins` returns `0`, and
# `careful_sum` returns `np.float32(0)`. Replace that line and run the cell: the check says whether it is right. The
# solution is folded below.
#
# **1. Share the houses.** Write the first house and the one after the last for part `part` of `parts`: together all
# houses, none twice, and no part with two houses more than another.

# %%
@exercise("Share the houses")
def houses_of(count, part, parts):
    """(first, last) of `count` houses, the last exclusive, for part = 0 ... parts - 1."""
    return 0, 0  # your answer


@houses_of.check
def _(answer):
    for count, parts in ((10, 3), (7, 7), (3, 5), (512, 6)):
        cuts = [answer(count, part, parts) for part in range(parts)]
        covered = [house for first, last in cuts for house in range(first, last)]
        told = (f"{count} houses in {parts} parts: expected all houses, in order, "
                f"each once; found {cuts}")
        assert covered == list(range(count)), told
        lengths = [last - first for first, last in cuts]
        told = (f"{count} houses in {parts} parts: expected no part with two houses more "
                f"than another; found parts of {lengths} houses")
        assert max(lengths) - min(lengths) <= 1, told


# %% tags=["solution"]
@houses_of.solution
def _(count, part, parts):
    return count * part // parts, count * (part + 1) // parts


# %% [markdown]
# **2. Count the bytes.** A layer computes $y = \tanh(x + b)$ in float32, with $x$ of $r \times c$ numbers and $b$ of
# $c$. How many bytes are read and written by the twin, in two passes, and by the kernel, in one? An array counts once
# for each pass that reads or writes it. The check asks the engine's own table.

# %%
@exercise("Count the bytes")
def traffic(r, c):
    """(bytes of the twin, bytes of the kernel)."""
    return 0, 0  # your answer


@traffic.check
def _(answer):
    for r, c in ((100, 500), (3, 4)):
        pre, bias = (tv.Tensor(np.ones(shape, np.float32)) for shape in ((r, c), (c,)))
        with tv.Tape() as twin:
            _ = (pre + bias).tanh()
        with tv.Tape() as kernel:
            _ = pre.apply("bias_activation", bias, kind="tanh")
        expected = tuple(sum(map(table.traffic, tape.working())) for tape in (twin, kernel))
        found = tuple(answer(r, c))
        told = (f"for {r} x {c} numbers the table has {expected} bytes of the twin and of "
                f"the kernel; found {found}")
        assert found == expected, told


# %% tags=["solution"]
@traffic.solution
def _(r, c):
    x = y = t = 4 * r * c
    b = 4 * c
    return x + b + t + t + y, x + b + y


# %% [markdown]
# **3. From which batch on?** A step on a GPU has $n$ launches of $t_0$ seconds each, and $f$ operations for each
# datum, at a peak of $\pi$ operations a second. From which batch on does the arithmetic take longer than the
# launches?

# %%
@exercise("From which batch on?")
def batch_where_arithmetic_wins(launches, seconds, operations, peak):
    """The smallest whole batch whose arithmetic takes longer than its launches."""
    return 0  # your answer


@batch_where_arithmetic_wins.check
def _(answer):
    for launches, seconds, operations, peak in ((30, 4.01e-6, 4e6, 5e13),
                                                (2, 1.0, 3.0, 4.0)):
        batch = 1
        while not batch * operations / peak > launches * seconds:
            batch += 1
        found = answer(launches, seconds, operations, peak)
        told = (f"for {launches} launches of {seconds:g} s, {operations:g} operations for "
                f"each datum and a peak of {peak:g} a second, counting up from 1 gives "
                f"{batch}; found {found}")
        assert found == batch, told


# %% tags=["solution"]
@batch_where_arithmetic_wins.solution
def _(launches, seconds, operations, peak):
    return math.floor(launches * seconds * peak / operations) + 1


# %% [markdown]
# **4. A sum that keeps the small ones.** In float32 $2^{24} + 1 = 2^{24}$: the one is lost. Whoever adds a thousand
# ones to $2^{24}$, one by one, gets $2^{24}$. Write a sum of numbers of float32, without any of float64, that still
# comes within one unit of the last digit here. Hint: what was lost in an addition can itself be computed in float32,
# and carried into the next; or add in pairs.

# %%
@exercise("A sum that keeps the small ones")
def careful_sum(values):
    """The sum of an array of float32, as float32."""
    return np.float32(0)  # your answer


@careful_sum.check
def _(answer):
    for values in ([2.0**24] + [1.0] * 1000, [0.1] * 20000):
        values = np.array(values, np.float32)
        exact, naive = math.fsum(values), np.cumsum(values, dtype=np.float32)[-1]
        unit, found = np.spacing(np.float32(exact)), answer(values)
        told = (f"expected {exact:.9g} within {unit:g}, found {float(found):.9g}; "
                f"one by one it is {naive:.9g}")
        assert abs(float(found) - exact) <= unit, told
        kind = np.asarray(found).dtype
        assert kind == np.float32, f"expected a number of float32, found one of {kind}"


# %% tags=["solution"]
@careful_sum.solution
def _(values):
    total = lost = np.float32(0)
    for value in values:  # Kahan (1965)
        carried = value - lost
        longer = total + carried
        lost = (longer - total) - carried  # what was added, less what should have been
        total = longer
    return total


# %% [markdown]
# ## What the sources say
#
# - The article says nothing of speed, and AEVB nothing of how to gain it, but AEVB's algorithm 1 is a loop that makes
#   the same step again and again over minibatches; that the step never changes is what makes it worth recording.
# - Williams, Waterman and Patterson, "Roofline" (2009), has the maximum of $F/\pi$ and $B/\beta$ in the claim. The
#   term $n\,t_0$ is ours.
# - Goldberg, "What every computer scientist should know about floating-point arithmetic" (1991), on rounding and on
#   Kahan's sum.
# - Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011), has Philox, the noise without
#   a state.
# - Blumofe and Leiserson, "Scheduling multithreaded computations by work stealing" (1999): idle threads take the work
#   of others, as the team's do.
# - How each part is made, what it is worth, what lost against it, and the comparison with other libraries, is in [How
#   a step is made fast](../speed.md) and [The same core on a GPU](../gpu.md).
