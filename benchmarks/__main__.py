"""All comparisons in turn:  python -m benchmarks,  or `make bench`. Each prints ratios with their spread."""

from . import data, metrics, minutes, steps, strangers, unet

for comparison in (steps, unet, strangers, metrics, data, minutes):
    print(f"\n{comparison.__doc__.splitlines()[0]}\n", flush=True)  # type: ignore[union-attr]
    comparison.main()
