"""`ftk merge` and `ftk extract`: models into one, adapters into their base, and an adapter out of two models.

Jobs: `models`, `adapters`, `extract`. What they are given: `sources`, `base`, `adapter_job`, `architecture`, `family`,
`tokenizer`. What lies beside the weights: `configuration`, `companions`, `chat_template`, `card`, `hashes`. Whether it
came out right: `check`, `proof`.
"""
