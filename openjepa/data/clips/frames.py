def sequence(names):
    return None
