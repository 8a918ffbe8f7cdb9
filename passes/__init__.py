"""The passes of hqc, one per file.

What several share is in `lowering`; how passes are run and verified is `hqc.pipeline`.
"""
