"""picojepa: pico-JEPA, one module per chapter of the book.

Layers point one way: `config` and `store` <- `standin`, `data`, `masking`, `architecture` <-
`pretraining`, `probing`, `ensemble`, `tsne` <- `results`; `plots` is for chapters only.
"""
