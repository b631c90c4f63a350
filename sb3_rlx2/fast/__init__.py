"""SB3's gradient step in arrays and kernels, without autograd's bookkeeping."""
