"""What compiled programs need when they run: the module class, binding of inputs, functions of generated code."""
