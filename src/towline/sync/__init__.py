"""The engine of sync mode: a three-way merge of laptop and container.

`model`, `ignore` and `reconcile` decide and touch nothing. `scan` reads the laptop's
folder, `replica` changes it, `remote` asks the agent to do the same on its side, `store`
keeps the ancestor, and `loop` runs them in turn. Nothing here knows of sessions or pods.
"""
