"""python -m tinyvae"""

from tinyvae.cli import main

main()
