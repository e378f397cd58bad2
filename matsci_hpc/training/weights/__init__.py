"""How the losses of several targets become one."""
