"""Loops over live weights, compiled by numba. Activations are feature-major ``[features, batch]``."""

import math

from numba import njit

_jit = njit(nogil=True, fastmath={"nsz", "arcp", "contract", "reassoc"})

IDENTITY, RELU, TANH = 0, 1, 2


@_jit
def spmm(row_pointers, columns, values, bias, x, y, relu):
    batch = x.shape[1]
    for row in range(y.shape[0]):
        out = y[row]
        out[:] = bias[row]
        start, stop = row_pointers[row], row_pointers[row + 1]
        j = start
        while j + 4 <= stop:
            w0, w1, w2, w3 = values[j], values[j + 1], values[j + 2], values[j + 3]
            x0, x1, x2, x3 = x[columns[j]], x[columns[j + 1]], x[columns[j + 2]], x[columns[j + 3]]
            for b in range(batch):
                out[b] += w0 * x0[b] + w1 * x1[b] + w2 * x2[b] + w3 * x3[b]
            j += 4
        while j < stop:
            w0 = values[j]
            x0 = x[columns[j]]
            for b in range(batch):
                out[b] += w0 * x0[b]
            j += 1
        if relu:
            for b in range(batch):
                out[b] = 0 if out[b] <= 0 else out[b]  # lets NaN through


@_jit
def spmm_t(column_pointers, rows, order, values, gz, gx):
    batch = gz.shape[1]
    for column in range(gx.shape[0]):
        out = gx[column]
        out[:] = 0
        start, stop = column_pointers[column], column_pointers[column + 1]
        j = start
        while j + 4 <= stop:
            w0, w1, w2, w3 = values[order[j]], values[order[j + 1]], values[order[j + 2]], values[order[j + 3]]
            g0, g1, g2, g3 = gz[rows[j]], gz[rows[j + 1]], gz[rows[j + 2]], gz[rows[j + 3]]
            for b in range(batch):
                out[b] += w0 * g0[b] + w1 * g1[b] + w2 * g2[b] + w3 * g3[b]
            j += 4
        while j < stop:
            w0 = values[order[j]]
            g0 = gz[rows[j]]
            for b in range(batch):
                out[b] += w0 * g0[b]
            j += 1


@_jit
def sddmm(row_pointers, columns, gz, x, grad_values, grad_bias):
    batch = gz.shape[1]
    for row in range(gz.shape[0]):
        g = gz[row]
        total = g[0] * 0
        for b in range(batch):
            total += g[b]
        grad_bias[row] = total
        for j in range(row_pointers[row], row_pointers[row + 1]):
            x0 = x[columns[j]]
            dot = g[0] * 0
            for b in range(batch):
                dot += g[b] * x0[b]
            grad_values[j] = dot


@_jit
def mlp_forward(widths, row_pointers, columns, values, bias, x, activations, y, output_activation):
    batch = x.shape[0]
    n_layers = len(widths) - 1
    for b in range(batch):
        for feature in range(widths[0]):
            activations[feature, b] = x[b, feature]
    below, row = 0, 0
    for layer in range(n_layers):
        above = below + widths[layer]
        out = widths[layer + 1]
        spmm(
            row_pointers[row : row + out + 1],
            columns,
            values,
            bias[row : row + out],
            activations[below:above],
            activations[above : above + out],
            layer < n_layers - 1 or output_activation == RELU,
        )
        below = above
        row += out
    for r in range(widths[n_layers]):
        for b in range(batch):
            v = activations[below + r, b]
            if output_activation == TANH:
                v = math.tanh(v)
                activations[below + r, b] = v
            y[b, r] = v


@_jit
def mlp_backward(
    widths, row_pointers, columns, values, column_pointers, rows, order, activations, gradients, grad_y,
    output_activation, grad_values, grad_bias, grad_x, need_grad_parameters, need_grad_x,
):  # fmt: skip
    batch = grad_y.shape[0]
    n_layers = len(widths) - 1
    above = 0
    for layer in range(n_layers):
        above += widths[layer]
    for r in range(widths[n_layers]):
        for b in range(batch):
            v = activations[above + r, b]
            g = grad_y[b, r]
            if output_activation == TANH:
                g = g * (1 - v * v)
            elif output_activation == RELU and v <= 0:
                g = g * 0
            gradients[above + r, b] = g
    row, column = len(row_pointers) - 1, len(column_pointers) - 1
    for layer in range(n_layers - 1, -1, -1):
        out, into = widths[layer + 1], widths[layer]
        below = above - into
        row -= out
        column -= into
        gz = gradients[above : above + out]
        x = activations[below:above]
        if need_grad_parameters:
            sddmm(row_pointers[row : row + out + 1], columns, gz, x, grad_values, grad_bias[row : row + out])
        if layer > 0 or need_grad_x:
            gx = gradients[below:above]
            spmm_t(column_pointers[column : column + into + 1], rows, order, values, gz, gx)
            if layer > 0:
                for i in range(into):
                    for b in range(batch):
                        if x[i, b] <= 0:
                            gx[i, b] = 0
        above = below
    if need_grad_x:
        for b in range(batch):
            for feature in range(widths[0]):
                grad_x[b, feature] = gradients[feature, b]
