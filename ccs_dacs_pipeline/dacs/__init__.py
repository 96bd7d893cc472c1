"""DACS's side: the extract files it reads, their names, their manifest, and a verifier that reads them back."""
