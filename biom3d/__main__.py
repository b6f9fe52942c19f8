"""`python -m biom3d` is the `biom3d` command."""

from biom3d.cli import main

raise SystemExit(main())
