"""The paper's authors: reading their checkpoints without running them, and turning their weights into ours."""
