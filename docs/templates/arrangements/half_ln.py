"""An arrangement: copy to `gradlens/lab/models/arrangements/`, and name here the paper, with its number and section."""

from torch import Tensor

from gradlens.lab.models.arrangements import Branch
from gradlens.lab.models.arrangements.pre_ln import PreLN


# Both are said anew of every class. Without `theory="..."`, a name in `gradlens.theory.arrangements.ARRANGEMENTS`, the
# analyses say that theory does not cover it.
class HalfLN(PreLN, skip_is_sound=True):
    """x + f(norm(x))/2: the paper's equation in one line, and what is remarkable about it."""

    def sublayer(self, name: str, x: Tensor, branch: Branch) -> Tensor:
        """Return x + f(norm(x))/2."""
        out: Tensor = x + self.dropout(branch(self.normed(f"{name}_norm", x))) / 2
        return out
