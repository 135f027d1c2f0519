"""What the findings on a model's wiring say, GL801 to GL808: all are facts, so that what a sick run shows follows."""

from functools import partial

from analyses.making import SYMPTOMS, Check

_check = partial(Check, analysis="architecture")
#: What a stream or a norm at fault shows of gradients and shares besides.
_DEPTH = (*SYMPTOMS, "GL102", "GL103", "GL201", "GL202")

SKIP = _check(
    code="GL801",
    explanation=(
        "A skip is missing. Of modules of one class in one place, with parameters and operations alike, one holds "
        "fewer residual additions than most of them: it replaces the stream where the others add to it. Read off the "
        "autograd graph of the first recorded pass, and asked where three such modules or more are seen. It fails, "
        "and never warns; networks without skips, and blocks that change the size of what they are given, are not "
        "asked."
    ),
    unit="additions",
    expected_from="the model's other blocks of the same class",
    threshold="fewer than most of {equals:g} equal modules or more",
    causes=(
        "A block that is told by a flag to go without its skip (innocent).",
        "x = f(x) where x = x + f(x) was meant.",
        "A branch that returns with its skip in some cases, and without in others.",
    ),
    remedies=("Add what the block is given to what its branch returns.",),
    explains=(*_DEPTH, "GL401", "GL804", "GL808"),
)
SIGN = _check(
    code="GL802",
    explanation=(
        "A skip with the wrong sign. A residual addition that takes the stream away, f − x or −x − f, so that what "
        "later blocks read changes its sign there, and no block can be the identity. Read off the autograd graph of "
        "the first recorded pass, along the stream of two additions or more; it fails, and never warns. The branch's "
        "sign is free (x − f is sound), and that of a projected skip."
    ),
    unit="additions",
    expected=0.0,
    expected_from="skips that are the identity",
    threshold="none",
    causes=(
        "A branch that is meant to predict the next stream, of which the difference is taken (innocent).",
        "f(x) - x where x + f(x) or x - f(x) was meant.",
    ),
    remedies=("Write x + f(x); where a difference is meant, x - f(x).",),
    explains=_DEPTH,
)
TWICE = _check(
    code="GL803",
    explanation=(
        "A norm twice. The only reader of a norm is another norm, with nothing but views, casts, dropout and "
        "constants between: the first one does no more than its gain and bias. Read off the autograd graph of the "
        "first recorded pass; it asks for a look, and never fails. Where the last block of a Post-LN stack ends with "
        "a norm and the stack has one of its own, as in torch.nn.Transformer, and where one part of a network ends "
        "with a norm and the next one begins with one, it passes."
    ),
    unit="norms",
    expected=0.0,
    expected_from="norms with something between them",
    threshold="none",
    causes=(
        "A part that was built to be used alone and is used inside of another (innocent).",
        "A final norm in the stack and another one behind it.",
        "A norm that is called where it is defined and again where it is used.",
    ),
    remedies=("Leave one of the two out.",),
)
FINAL = _check(
    code="GL804",
    explanation=(
        "The final norm is missing. Every branch of a stack begins with a norm (Pre-LN), none stands on its stream, "
        "and a linear product with weights reads the last sum with no norm behind it: the head is given a stream "
        "that grows with each block and with training. Read off the autograd graph of the first recorded pass; it "
        "asks for a look, and never fails. Where the stream is what the model returns it is not asked, for what "
        "reads it is not in the model, nor where a convolution is behind it."
    ),
    unit="stacks",
    expected=0.0,
    expected_from="Pre-LN as published: a norm after the last block",
    threshold="none",
    causes=(
        "A network that was published without one (innocent).",
        "torch.nn.TransformerEncoder with norm_first=True and no norm=.",
        "A final norm that is built and never called.",
    ),
    remedies=("Put a norm between the last block and the head.",),
    reference="Xiong et al. 2020 (2002.04745), Section 3.1",
    explains=("GL303", "GL402"),
)
AXIS = _check(
    code="GL805",
    explanation=(
        "A norm over another axis. A norm on a stream whose parameters are made for another size than the stream's "
        "features, which are what the branches' last products make; or, on a stream of vectors, for several axes at "
        "once. Where the branches do not agree, as in mixers, the odd one of the norms. It asks for a look, and "
        "never fails. Images may be normalized over channels and space together, and GroupNorm, norms inside of "
        "branches and those of queries and keys are not asked."
    ),
    unit="features",
    expected_from="the products at the end of the stack's branches",
    threshold="the stream's features",
    causes=(
        "A norm over time or space that is meant (innocent).",
        "A transposition too many or too few before the norm.",
        "nn.LayerNorm given the shape of a whole sample; BatchNorm1d given batch × tokens × features.",
    ),
    remedies=("Normalize over the features: nn.LayerNorm(features), on tensors whose last axis they are.",),
    explains=_DEPTH,
)
EVALUATION = _check(
    code="GL806",
    explanation=(
        "Norms in evaluation mode. BatchNorm or InstanceNorm that normalized with its running statistics in a "
        "recorded step, through which a gradient came: nothing was removed of it, as no derivative of μ and σ "
        "flowed. Asked of training only; it asks for a look, and never fails. Norms whose own parameters are frozen "
        "too are meant to stand still, and pass."
    ),
    unit="norms",
    expected=0.0,
    expected_from="norms that learn their statistics from the batches they see",
    threshold="none",
    causes=(
        "Statistics that are kept on purpose, as in fine-tuning with small batches (innocent).",
        "model.eval() for validation, and no model.train() after it.",
        "A pretrained model, which is loaded in evaluation mode.",
    ),
    remedies=("Call model.train() before the step.", "Where that is meant, freeze the norms' weight and bias as well."),
    explains=SYMPTOMS,
)
DETACHED = _check(
    code="GL807",
    explanation=(
        "Detached statistics. Norms that divide by σ (and subtract μ), and from whose gradient nothing is removed in "
        "any recorded step, which no derivative of μ or σ can leave so: they are constants in backward. It asks for "
        "a look, and never fails. Norms that are named so (DetachNorm, frozen ones) pass; BatchNorm and InstanceNorm "
        "are asked by GL806."
    ),
    unit="norms",
    expected=0.0,
    expected_from="the derivative of a normalization",
    threshold="more than {rounding:g} of the gradient's energy removed in some step",
    causes=(
        "A study of what the derivative of the statistics is good for (innocent).",
        "A detach(), no_grad() or .data around mean or variance.",
    ),
    remedies=("Compute mean and variance where the graph is recorded.",),
    reference="Xu et al. 2019 (1911.07013), Section 3.1: DetachNorm",
    explains=SYMPTOMS,
)
STREAM = _check(
    code="GL808",
    explanation=(
        "The stream at the start. Blocks that begin with a norm add alike to the stream's second moment, so that it "
        "grows linearly; it warns where one adds {times:g} times the median block and the stream is {grows:g} times "
        "what it was before, or where every block multiplies it by more than {each:g}. Blocks that end with a norm "
        "begin with a second moment of 1; it warns where one ends above {level:g} before its norm. It never fails. "
        "Asked at initialization and in a first step; not of models whose stream is held by single entries, as after "
        "training, and not where GL102 knows the exact law."
    ),
    expected_from="the arrangement's law: blocks add alike (Pre-LN), or begin with 1 (Post-LN)",
    causes=(
        "Weights that go on from a training (innocent).",
        "A weight of one block that is initialized larger than in the others.",
        "Branches without a norm, or a factor on the skip, by which each block multiplies the stream.",
    ),
    remedies=(
        "Initialize the branches of all blocks alike, the last product of each smaller by √(2 × blocks).",
        "Put a norm on each branch.",
    ),
    explains=_DEPTH,
)
