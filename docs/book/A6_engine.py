# %% [markdown]
# # A6. The engine
#
# Chapter 8 asked for $\nabla_\phi$ of an expectation, and chapter 9 moved that gradient to where a program can compute
# it: inside the expectation, on an ordinary function of numbers. This page shows how a program computes it. First you
# differentiate a graph of four nodes by hand, then a loop does the same for any graph, and at the end the loop's own
# operations are written down and run again, with the same bits.
#
# ## What you need to know
#
# The derivatives of a sum, a product and the exponential; and that the derivative of a function of several variables
# by one of them holds the others fixed. A *launch* is one run of one operation: $y = f(x_1, \dots, x_n)$, where the
# $x_i$ are given numbers or results of earlier launches. A *graph* is a list of launches in the order they ran, and
# $L$ is the result of the last.
#
# > **Claim.** The derivative of $L$ by any number $x$ of the graph is a sum over the launches that read $x$,
# >
# > $$\frac{\partial L}{\partial x} = \sum_{y = f(\dots, x, \dots)} \frac{\partial L}{\partial y}
# >   \, \frac{\partial y}{\partial x}.$$
# >
# > Taken from the last launch to the first, each $\partial L / \partial y$ is complete when it is needed. So one walk
# > gives the derivatives by all inputs, and it consists of ordinary launches, which can be differentiated and
# > recorded like all others.

# %%
import math
import textwrap

import numpy as np

import tinyvae as tv
from tinyvae.engine import table
from tinyvae.engine.program import Program
from tinyvae.lessons.book import exercise, show
from tinyvae.pictures.page import INK, PALE, TEST, TRAIN, new_figure

# %% [markdown]
# ## The price of wheat
#
# Wheat becomes dearer by a cent. How much dearer is an egg sandwich? The baker passes on what the bread takes; the
# farmer feeds the hens with wheat, so the eggs rise, too. You can follow the cent from the field to the counter, and
# you have to begin anew for salt, butter and wages. Or you stand at the counter and ask backwards: of a cent on the
# sandwich, how much is due to the bread, and how much to the egg? Then you ask the baker and the farmer what is due
# to their suppliers. Everyone is asked once, and only after all of their customers have been asked, because only then
# they know what they have to answer for. At the end each supplier, of wheat, of salt, of butter, has the answer.
#
# The sandwich is $L$, a trade is a launch, what one more cent of an ingredient adds to a product is
# $\partial y/\partial x$, and "after all of their customers" is the order of the walk.
#
# ## Four nodes, by hand
#
# Take $L = a\,e^a + e^a$, which a program computes once as $b = e^a$, then $c = a b$, then $L = c + b$. The numbers
# $a$ and $b$ are read twice each, and this is what the sum in the claim is for. Walk back from $L$:
#
# | node | what the launch passes back | then complete |
# | --- | --- | --- |
# | $L = c + b$ | $1$ to $c$, $1$ to $b$ | $\partial L/\partial L = 1$ |
# | $c = a b$ | $b$ to $a$, $a$ to $b$ | $\partial L/\partial c = 1$ |
# | $b = e^a$ | $(1 + a)\,b$ to $a$ | $\partial L/\partial b = 1 + a$, from $L$ and from $c$ |
# | $a$ | | $\partial L/\partial a = b + (1 + a)\,b = (2 + a)\,e^a$, from $c$ and from $b$ |
#
# If $b$ passed its derivative on before $c$ was asked, it would pass on $1$ in place of $1 + a$. So the order matters
# as much as the slopes. Here it is as a loop over a list; each launch has its result, and the slope by each of its
# inputs.

# %%
def walk(launches, last):
    """The derivatives of `last` by all numbers, by name.

    A launch is (result, {input: slope}); the list has them in the order they ran.
    """
    derivative = {last: 1.0}
    for result, slopes in reversed(launches):
        if result not in derivative:
            continue  # `last` does not depend on it
        for name, slope in slopes.items():
            derivative[name] = derivative.get(name, 0.0) + derivative[result] * slope
    return derivative


a = 0.5
b = math.exp(a)
c = a * b
L = c + b
graph = [("b", {"a": b}), ("c", {"a": b, "b": a}), ("L", {"c": 1.0, "b": 1.0})]
found = walk(graph, "L")


def by_a(a, step=1e-6):
    """dL/da by a central difference."""
    high, low = ((v + 1) * math.exp(v) for v in (a + step, a - step))
    return (high - low) / (2 * step)


print("node   value   derivative of L by it")
for name, value in (("L", L), ("c", c), ("b", b), ("a", a)):
    print(f"{name:<4}{value:>8.4f}{found[name]:>12.4f}")
print(f"\n(2 + a) exp(a) = {(2 + a) * math.exp(a):.4f}; "
      f"by a central difference {by_a(a):.4f}")

# %% tags=["drawing"]
figure = new_figure(7, 2.7)
axes = figure.add_axes((0, 0, 1, 1))
axes.set_axis_off()
axes.set(xlim=(-0.6, 6.6), ylim=(-0.95, 2.1))
places = {"a": (0, 0), "b": (2, 1.15), "c": (4, 0), "L": (6, 1.15)}
written = {"a": "a", "b": "b = exp(a)", "c": "c = a·b", "L": "L = c + b"}
arrows = ["ab b", "ac b", "bc a", "bL 1", "cL 1"]  # from, to, slope
for (start, end), slope in map(str.split, arrows):
    axes.annotate("", places[end], places[start], zorder=1,
                  arrowprops={"arrowstyle": "-|>", "color": PALE, "shrinkA": 34,
                              "shrinkB": 36})
    middle = np.mean([places[start], places[end]], axis=0)
    axes.text(*middle, f"slope {slope}", fontsize=8, color=INK, ha="center", va="center",
              bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
for name, (x, y) in places.items():
    axes.text(x, y, written[name], fontsize=10, color=INK, ha="center", va="center",
              bbox={"facecolor": "#f4f4f4", "edgecolor": PALE, "boxstyle": "round,pad=.4"})
    value = {"a": a, "b": b, "c": c, "L": L}[name]
    axes.text(x, y + 0.42, f"value {value:.3f}", fontsize=8.5, color=TRAIN, ha="center")
    axes.text(x, y - 0.58, f"∂L/∂{name} = {found[name]:.3f}", fontsize=8.5, color=TEST,
              ha="center")
axes.text(-0.5, 1.95, "Values go from left to right, derivatives from right to left",
          fontsize=9, color=INK)
show(figure, "The graph of four nodes. Arrows lead from a to b and c, from b to c and L, "
             "from c to L, each with its slope. At a = 0.5 the values are b = 1.649, "
             "c = 0.824, L = 2.473, and the derivatives 1 by L, 1 by c, 1.5 by b and "
             "4.122 by a.")

# %% [markdown]
# ## The rows of the table
#
# The loop knows nothing of exponentials or products. What it needs of an operation is its value and its slopes, and
# the engine has both in one row of a table. A row does not hold $\partial y/\partial x$ itself but what the launch
# passes back: from $g = \partial L/\partial y$ it makes $g\,\partial y/\partial x$. For $y = e^a$ that is $g\,y$, for
# $y = a b$ it is $g\,b$ and $g\,a$:
#
# $$y = e^a: \quad g \mapsto g\,y$$
#
# ```{line} tinyvae/engine/rules.py
# rule("exp", elementwise("exp"), (lambda g, y, a: g * y,))
# ```
#
# $$y = a\,b: \quad g \mapsto (g\,b,\ g\,a)$$
#
# ```{line} tinyvae/engine/rules.py
# rule("mul", elementwise("multiply"), (lambda g, y, a, b: g * b, lambda g, y, a, b: g * a), (ANY, ANY))
# ```
#
# Passing back $g\,\partial y/\partial x$ in place of the slope matters as soon as $y$ is an array. A product of a
# $100 \times 784$ matrix $A$ and a $784 \times 500$ matrix $B$ has $50{,}000$ results and $392{,}000$ inputs in $B$
# alone; the slopes would be $2 \cdot 10^{10}$ numbers, nearly all of them 0. From $y_{ij} = \sum_k a_{ik} b_{kj}$
# follows $\partial L/\partial a_{ik} = \sum_j g_{ij} b_{kj}$ and $\partial L/\partial b_{kj} = \sum_i a_{ik} g_{ij}$,
# so what is passed back are two products again:
#
# $$Y = A B: \quad G \mapsto (G B^\top,\ A^\top G)$$
#
# ```{line} tinyvae/engine/rules.py
# (lambda g, y, a, b, **_: g @ b.swap(), lambda g, y, a, b, **_: a.swap() @ g), (ANY, ANY),
# ```
#
# ## The walk
#
# The engine's walk is the loop from above with arrays in place of numbers. It goes from the last launch to the first,
# and visits only launches on a path to an input that is asked for:
#
# $$\text{launches } t = T, T-1, \dots, 1$$
#
# ```{line} tinyvae/engine/tape.py
# for launch, asked in reversed(_paths(output, goals)):
# ```
#
# and where a second reader passes something back, it is added:
#
# $$\frac{\partial L}{\partial x} \leftarrow \frac{\partial L}{\partial x} + g\,\frac{\partial y}{\partial x}$$
#
# ```{line} tinyvae/engine/tape.py
# gradients[name] = gradients[name] + by_input if name in gradients else by_input
# ```
#
# One more thing comes with arrays. A bias $b$ of shape $(n)$ is added to every row of a batch; so all rows read the
# same $b$, and the claim's sum runs over them. The walk does this once for all rows of the table:
#
# $$y_{ij} = x_{ij} + b_j: \quad \frac{\partial L}{\partial b_j} = \sum_i g_{ij}$$
#
# ```{line} tinyvae/engine/tape.py
# return g.sum((*range(extra), *repeated)).reshape(shape)
# ```
#
# Here is the graph of four nodes in the engine. A `Tape` writes down which launches run. The first three are yours,
# the others are the walk's: it multiplies and adds like anyone else.

# %%
node = tv.Tensor(np.array(a), requires_grad=True)
with tv.Tape() as tape:
    b_node = node.exp()
    c_node = node * b_node
    L_node = c_node + b_node
    slope = tv.grad(L_node, node)
print(tape)
print(f"\ndL/da = {slope.numpy():.4f}")

# %% [markdown]
# Because the walk made launches, they have derivatives themselves. A second walk over the first gives
# $\partial^2 L / \partial a^2 = (3 + a)\,e^a$, a third $(4 + a)\,e^a$, without a line of code for it:

# %%
derivative = node * node.exp() + node.exp()
for order in (1, 2, 3):
    derivative = tv.grad(derivative, node)
    exact = (order + 1 + a) * math.exp(a)
    print(f"order {order}: {derivative.numpy():.10f}, exactly {exact:.10f}")

# %% [markdown]
# ## One walk for all inputs
#
# A difference quotient needs a run of the program for each input, and so does following the cent forwards. The walk
# backwards needs one for all of them together. Its length depends on the graph, not on how many numbers go in:

# %%
for count in (10, 1_000, 100_000):
    x = tv.Tensor(np.linspace(-1, 1, count), requires_grad=True)
    with tv.Tape() as tape:
        loss = (x.tanh() * x).sum()
        there = len(tape)
        tv.grad(loss, x)
    flops = [table.flops(launch) for launch in tape.launches]
    ratio = sum(flops[there:]) / sum(flops[:there])
    print(f"{count:>7,} inputs: {there} launches there and {len(tape) - there} back, "
          f"with {ratio:.2f} times the arithmetic")

# %% [markdown]
# The price is memory. The walk reads $a$ and $b$ again, so what a launch read and computed has to stay until the walk
# has passed.
#
# ## Replay
#
# Building a graph takes time: objects, look-ups, a sort of the launches. A training step builds the same graph each
# time. But the list of launches is there, and each launch knows the arrays it reads and the array it writes. So the
# list is a program: run it again, launch by launch, into the same arrays,
#
# $$y_t \leftarrow f_t(\text{the arrays that launch } t \text{ reads}), \qquad t = 1, \dots, T$$
#
# ```{line} tinyvae/engine/program.py
# for call in self.calls:
#     call()
# ```
#
# It is the same arithmetic in the same order, so the results must have the same *bits*, not only nearly the same
# values. We record at one $x$, put other numbers into the same array, and replay:

# %%
values = np.random.default_rng(0)
x = tv.Tensor(values.normal(size=1000).astype(np.float32), requires_grad=True)


def forward_and_back():
    loss = (x.tanh() * x).sum()
    return loss, tv.grad(loss, x)


with tv.Tape() as tape:
    recorded = forward_and_back()
equal = 0
for _ in range(100):
    x.data[:] = values.normal(size=1000)
    tape.replay()
    anew = forward_and_back()
    equal += all(one.data.tobytes() == other.data.tobytes()
                 for one, other in zip(recorded, anew, strict=True))
print(f"{len(tape)} launches; equal bits in {equal} of 100 replays")

# %% [markdown]
# ## Predict, then run
#
# What changes between two replays has to be in an array. A Python number is not: it was read when the list was
# written, and the list keeps it. `Program` guards against this mistake. Its first call records; the second and the
# third replay the list, run the function anew from the same state, and compare the bits:
#
# $$\text{bits}(\text{replay}) = \text{bits}(\text{run anew})$$
#
# ```{line} tinyvae/engine/program.py
# if _bits([*state, *_arrays(result)]) == replayed:
#     return
# ```
#
# The step below divides by a Python number, as a learning rate that falls would. In the first program the number
# grows at every call, in the second from the fourth call on. **What happens at each of the five calls of each
# program?** Three answers are possible for a call: the right number, the old number, or an error, after which the
# program is called no more.

# %% tags=["answer"]
def five_calls(denominators):
    one = tv.Tensor(np.array([1.0]))
    now = {}
    program = Program(lambda: one / now["denominator"])
    for number, denominator in enumerate(denominators, 1):
        now["denominator"] = denominator
        try:
            result = program().numpy()[0]
        except tv.TapeError as refused:
            print(f"call {number}: an error.")
            print(*textwrap.wrap(str(refused), 88), sep="\n")
            return
        expected = 1 / denominator
        told = "right" if result == expected else f"wrong: it is {expected:.3f}"
        print(f"call {number}: {result:.3f}, {told}")


print("It grows at every call:")
five_calls([1, 2, 3, 4, 5])
print("\nIt grows from the fourth call on:")
five_calls([1, 1, 1, 4, 5])

# %% [markdown]
# The first program is refused at its second call, with the name of the launch that differs. The second passes both
# comparisons, for nothing had changed by then, and from the fourth call on it silently returns the old number. A
# comparison sees what happened, not what will. So the rule comes first and the comparison second: whatever changes
# from step to step (the batch, the step's number, the learning rate, the weight of the KL) lives in an array, and
# `tinyvae.Noise` reads the number of the step from one. The comparison catches what someone has forgotten, if it
# shows early.
#
# ## Exercises
#
# Replace the line after the docstring and run the cell: the check says whether it is right. The solution is folded
# below.
#
# **1. Another graph, by hand.** Let $u = x y$, $v = e^u$ and $L = u v$. The numbers $x$ and $y$ are
# given. Write $\partial L/\partial x$ and $\partial L/\partial y$. Mind that $u$ is read twice.

# %%
@exercise("Another graph, by hand")
def slopes_by_hand(x, y):
    """dL/dx and dL/dy of u = x y, v = exp(u), L = u v."""
    return 0.0, 0.0  # your answer


@slopes_by_hand.check
def _(answer):
    tiny = 1e-30  # f(x + i h) = f(x) + i h f'(x): the imaginary part has the slope
    for x, y in ((0.5, 1.2), (-1.0, 0.3), (2.0, -0.7)):
        u, w = complex(x, tiny) * y, x * complex(y, tiny)
        expected = [(z * np.exp(z)).imag / tiny for z in (u, w)]
        found = answer(x, y)
        told = (f"at x = {x}, y = {y} a complex step gives dL/dx = {expected[0]:.6f}, "
                f"dL/dy = {expected[1]:.6f}; found {np.round(found, 6)}")
        assert np.allclose(found, expected, rtol=1e-10, atol=0), told


# %% tags=["solution"]
@slopes_by_hand.solution
def _(x, y):
    u = x * y
    v = math.exp(u)
    by_v = u  # L = u v
    by_u = v + by_v * v  # from L, and from v = exp(u)
    return by_u * y, by_u * x


# %% [markdown]
# **2. The walk forwards.** Follow the cent from the field to the counter: write the loop that gives
# $\partial y/\partial a$ for *every* number $y$ of a graph and *one* input $a$. The graph is a list of (result,
# {input: slope}) in the order they ran, as above. Which order does the loop need, and what has the claim's sum
# become?

# %%
@exercise("The walk forwards")
def forwards(launches, first):
    """The derivatives of all numbers by `first`, by name; 0 where there is none."""
    return {}  # your answer


@forwards.check
def _(answer):
    b = math.exp(0.5)
    four = [("b", {"a": b}), ("c", {"a": b, "b": 0.5}), ("L", {"c": 1.0, "b": 1.0})]
    found = answer(four, "a")
    for name, expected in (("L", 2.5 * b), ("c", 1.5 * b), ("b", b)):
        value = found.get(name, 0)
        told = (f"for the four nodes at a = 0.5 expected d{name}/da = {expected:.6f}, "
                f"found {value:.6f}")
        assert abs(value - expected) < 1e-12, told
    two = answer([("p", {"r": 2.0}), ("q", {"s": 7.0}), ("L", {"p": 3.0, "q": 5.0})], "s")
    told = f"only q depends on s: expected dL/ds = 7 times 5, found {two.get('L', 0)}"
    assert abs(two.get("L", 0) - 35) < 1e-12, told
    told = f"p does not depend on s: expected dp/ds = 0, found {two.get('p')}"
    assert two.get("p") == 0, told


# %% tags=["solution"]
@forwards.solution
def _(launches, first):
    derivative = {first: 1.0}
    for result, slopes in launches:  # in the order they ran; the sum is over what one reads
        derivative[result] = sum(slope * derivative.get(name, 0.0)
                                 for name, slope in slopes.items())
    return derivative


# %% [markdown]
# **3. A row of the table.** The length of the hypotenuse is $y = \sqrt{a^2 + b^2}$. Write what its launch passes back
# to $a$ and to $b$, given $g = \partial L/\partial y$. You may use $y$, which the launch has computed already.

# %%
@exercise("A row of the table")
def passed_back(g, y, a, b):
    """(g dy/da, g dy/db) for y = sqrt(a^2 + b^2); arrays of one shape."""
    return 0.0 * a, 0.0 * b  # your answer


@passed_back.check
def _(answer):
    g, a, b = np.array([[1.0, -2.0, 0.5], [3.0, 1.0, -2.0], [4.0, -1.0, 0.1]])
    step = 1e-6
    expected = (g * (np.hypot(a + step, b) - np.hypot(a - step, b)) / (2 * step),
                g * (np.hypot(a, b + step) - np.hypot(a, b - step)) / (2 * step))
    found = answer(g, np.hypot(a, b), a, b)
    for name, ours, theirs in zip("ab", found, expected, strict=True):
        told = f"to {name} central differences pass back {theirs}; found {ours}"
        assert np.allclose(ours, theirs, rtol=1e-7, atol=1e-9), told


# %% tags=["solution"]
@passed_back.solution
def _(g, y, a, b):
    return g * a / y, g * b / y


# %% [markdown]
# In the engine this is a row, and its gradients can then be held against finite differences. The last argument says
# from which numbers the tests draw.
#
# ```python
# tv.rule("hypot", lambda xp, a, b, out: xp.hypot(a, b, out=out),
#         (lambda g, y, a, b: g * a / y, lambda g, y, a, b: g * b / y),
#         (tv.Interval(0.3, 3), tv.Interval(0.3, 3)))
# tv.testing.check_gradients(lambda a, b: tv.apply("hypot", a, b).sum(), a, b)
# ```
#
# **4. What was repeated is summed.** A gradient $g$ has the shape of the result, but the input had fewer numbers,
# which were repeated along some axes. Sum $g$ back to the shape of the input: along axes that the input lacks in
# front, and along those where it has length 1.

# %%
@exercise("What was repeated is summed")
def summed_back(g, shape):
    """The array g, summed to `shape`, from which broadcasting made the shape of g."""
    return np.zeros(shape)  # your answer


@summed_back.check
def _(answer):
    g = np.arange(24.0).reshape(2, 3, 4)
    for shape, letters in (((3, 4), "ijk->jk"), ((4,), "ijk->k"), ((), "ijk->"),
                           ((1, 3, 1), "ijk->j"), ((2, 1, 4), "ijk->ik")):
        expected = np.einsum(letters, g).reshape(shape)
        found = answer(g, shape)
        told = f"for the shape {shape} expected\n{expected}\nfound\n{found}"
        assert np.array_equal(found, expected), told


# %% tags=["solution"]
@summed_back.solution
def _(g, shape):
    extra = g.ndim - len(shape)
    alone = tuple(extra + i for i, length in enumerate(shape) if length == 1)
    return g.sum((*range(extra), *alone)).reshape(shape)


# %% [markdown]
# ## What the sources say
#
# - AEVB has the whole of this page in one line of its algorithm 1, which computes the gradients of the minibatch
#   estimator. That this line needs no formula of its own for each model is what made the method easy to use.
# - Griewank and Walther, "Evaluating Derivatives" (2008), is the textbook of both walks; they call them the forward
#   and the reverse mode, and prove that the reverse one costs a small multiple of the function, whatever the number
#   of inputs. Baydin, Pearlmutter, Radul and Siskind, "Automatic differentiation in machine learning: a survey"
#   (2018), tell its history: it was found several times, as backpropagation among others.
# - Other libraries replay, too: JAX traces a function into a program, PyTorch captures CUDA graphs. Both freeze what
#   is a Python number when they record. PyTorch's tracing can compare the outputs of the trace with those of the
#   function, within a tolerance. What this engine adds is the comparison of the first replays of a whole training step
#   with the step run anew, bit for bit.
