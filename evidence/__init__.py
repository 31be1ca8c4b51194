"""What is run, its cards, and what they say.

- data and control: `gates`, `pilot`, `control`, `readouts`, `baselines`, `supervision`
- many short runs at once: `trials` runs a list such as `factorial`, `effects` is their statistic
- one change at a time: `experiments`, `runs`; questions to finished encoders: `studies` and `study_...`
- real videos: `people`
- what the pages load: `records`; claims and verdicts: `ledger`; the paper's own numbers: `arithmetic`
"""
