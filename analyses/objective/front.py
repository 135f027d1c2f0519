"""Whether a model normalizes its input itself, right at its front."""

from gradlens.recording import Recording

#: Norms there see the stream or a branch, not what goes in.
_ELSEWHERE = ("pre_branch", "in_branch", "post_branch", "qk", "final")


def normalized(recording: Recording) -> str:
    """Return the norm that takes the input's scale out, before any layer; empty where there is none.

    Args:
        recording: with the parameters in the order of registration.
    """
    sites = recording.sites
    norms = sites[sites["kind"] == "norm"].sort_values("order")
    if norms.empty or str(norms.iloc[0]["placement"]) in _ELSEWHERE:
        return ""
    first = str(norms.iloc[0]["site"])
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in recording.params["name"].unique()))
    # Of a norm without parameters nobody knows what stands before it: it is given the benefit of the doubt.
    return first if first not in modules or modules.index(first) == 0 else ""
