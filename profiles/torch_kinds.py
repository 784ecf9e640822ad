"""What each aten operator does to its tensors, for those that need no counter of their own."""

from collections.abc import Mapping

from profiles.graph import Kind, operators

VIEWS = operators(
    """as_strided view _unsafe_view reshape unsqueeze squeeze detach alias expand clone contiguous lift_fresh
    view_as_real view_as_complex _reshape_alias dropout"""
)
COPIES = operators(
    """t transpose permute slice select split split_with_sizes unsafe_split unsafe_split_with_sizes unbind chunk unfold
    cat stack pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d
    index index_select gather embedding scatter roll flip repeat im2col pixel_shuffle pixel_unshuffle
    channel_shuffle narrow diagonal copy_ masked_fill tril triu transpose_ index_put slice_scatter"""
)
POINTWISE = operators("hardswish hardswish_ hardsigmoid _to_copy gelu silu prelu _prelu_kernel polar complex")
REDUCTIONS = operators(
    """mean sum amax amin max min argmax argmin var std var_mean norm linalg_vector_norm cumsum topk prod any all
    logsumexp sort"""
)
POOLS = operators(
    """max_pool2d max_pool2d_with_indices max_pool1d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d
    avg_pool3d _adaptive_avg_pool2d adaptive_avg_pool1d _adaptive_avg_pool3d adaptive_max_pool2d"""
)
NORMS = operators("native_group_norm native_layer_norm _fused_rms_norm")
SOFTMAXES = operators("_log_softmax _safe_softmax _softmax")
BATCHNORMS = operators("_batch_norm_no_update _native_batch_norm_legit_no_training cudnn_batch_norm native_batch_norm")
FACTORIES = operators(
    """arange empty eye full full_like hann_window hamming_window linspace new_empty new_full new_ones new_zeros ones
    ones_like scalar_tensor zeros zeros_like empty_like sym_size _assert_async _local_scalar_dense"""
)

# Operators whose result has the shape and type of their first operand (binary: where the second one has them too).
BINARY = operators("add div mul sub")

KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(VIEWS, "view"),
    **dict.fromkeys(COPIES, "copy"),
    **dict.fromkeys(POINTWISE, "pointwise"),
    **dict.fromkeys(REDUCTIONS, "reduce"),
    **dict.fromkeys(POOLS, "pool"),
    **dict.fromkeys(NORMS, "norm"),
    **dict.fromkeys(SOFTMAXES, "softmax"),
    **dict.fromkeys(BATCHNORMS, "batchnorm"),
}
