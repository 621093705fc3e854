"""`python -m openjepa` is the command `openjepa`; with torchrun: `torchrun --nproc-per-node=2 -m openjepa train ...`."""

from openjepa.app.cli import main

if __name__ == "__main__":
    main()
