"""The sections: each measures one thing, and `sections.py` names them."""
