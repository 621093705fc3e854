"""`python -m openjepa` is the command `openjepa`; on many GPUs: `torchrun --nproc-per-node=8 -m openjepa train ...`."""

from openjepa.app.cli import main

if __name__ == "__main__":
    main()
