"""The resource MultiArchBuild: its fields, the rules that hold them, and what the steps of a run report.

    resource    the object as a whole, with its group, names and annotations
    spec        what is asked for; source, scheduling, platforms, durations and names are parts of it
    status      what was observed; conditions and reasons are parts of it
    inputs      what the operator hands to the steps, and mounts: where they find it
    results     what the steps hand back
    crd         the CustomResourceDefinition that the models make; schema has the keywords that pydantic lacks

Nothing is imported here: a step starts several times a run and loads just the modules it needs.
"""
