"""The files of models: tensors read and written, layouts and the names they use."""
