"""`python -m lmtasks`, which torchrun and accelerate launch."""

from lmtasks.cli.main import main

if __name__ == "__main__":
    main()
