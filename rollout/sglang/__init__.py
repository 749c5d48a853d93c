"""The SGLang tier: launch real servers, talk to them token in and token out, keep their weights in step."""
