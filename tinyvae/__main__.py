"""python -m tinyvae"""

from tinyvae.cli.main import main

main()
