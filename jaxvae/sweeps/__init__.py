"""Many runs in one program: seeds, rate-distortion curves, searches."""
