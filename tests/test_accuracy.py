"""Accuracy a call, beside another library's schedulers: what benchmarks/accuracy.py prints, on fewer samples."""

from statistics import median

import pytest

pytest.importorskip("diffusers", reason="the peer, diffusers, is not installed")

from benchmarks import accuracy  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the peer's own


@pytest.mark.parametrize("nfe", [5, 10])
@pytest.mark.parametrize("dim, samples", [(2, 64), (64, 16)])
def test_the_default_is_nearer_to_the_exact_flow(
    dim: int, samples: int, nfe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Than the best of those in common use with Karras' grid, whichever that is for each mixture."""
    monkeypatch.setitem(accuracy.SAMPLES, dim, samples)
    rivals = [peer for peer in accuracy.rivals(dim, True) if "use_karras_sigmas" in peer.settings]
    rows = list(accuracy.compare(dim, nfe, rivals))
    assert len(rivals) > 15
    assert all(row.ratio < 0.8 for row in rows), [(row.mixture, row.ratio, row.peer) for row in rows]
    assert median(row.ratio for row in rows) < 0.5
