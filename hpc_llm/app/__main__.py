"""`python -m hpc_llm.app` is equivalent to `hpc-llm`; launchers start ranks with it."""

import sys

from hpc_llm.app.main import main

if __name__ == "__main__":
    sys.exit(main())
