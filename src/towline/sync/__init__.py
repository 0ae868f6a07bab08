"""The engine of sync mode will live here: a three-way merge of laptop and container.

Nothing of it exists yet; `towline up` says so.
"""
