"""From any video file and any list of videos to decoded frames.

- `footage.folders`, `footage.tables`: folders and lists as people and programs write them, understood
- `footage.lists`: the list of videos that is made of them, the split, classes and quarters
- `footage.containers`: what the first bytes of a file say
- `footage.videos`: from a file to its clips, and from a list to a folder of decoded clips
- `footage.workers`: processes with a time limit, since a damaged file may hang or kill its decoder

Book: chapter 1, and the pages on one's own videos and on reliability.
"""
