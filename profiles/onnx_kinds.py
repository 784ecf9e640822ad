"""What each ONNX operator does to its tensors, for those that need no counter of their own."""

from profiles.graph import Kind, operators

POINTWISE = operators(
    """Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike
    Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish IsInf
    IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu
    Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor QuickGelu
    FastGelu BiasGelu QLinearAdd QLinearMul QLinearSigmoid QLinearLeakyRelu
    Bernoulli BiasAdd BitCast Multinomial RandomNormalLike RandomUniformLike RotaryEmbedding SwiGLU"""
)
VIEWS = operators("Dropout Expand Flatten Identity Reshape Squeeze Unsqueeze")
COPIES = operators(
    """CenterCropPad Col2Im Compress Concat DepthToSpace Gather GatherElements GatherND OneHot Pad ReverseSequence
    Scatter ScatterElements ScatterND Slice SpaceToDepth Split Tile TensorScatter
    Transpose Trilu QLinearConcat EmbedLayerNormalization"""
)
REDUCTIONS = operators(
    """ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare TopK QLinearReduceMean CumProd NegativeLogLikelihoodLoss NonMaxSuppression
    SoftmaxCrossEntropyLoss Unique"""
)
POOLS = operators(
    """AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool MaxRoiPool QLinearAveragePool
    QLinearGlobalAveragePool"""
)
NORMS = operators(
    """GroupNorm GroupNormalization InstanceNormalization LayerNormalization LpNormalization LRN
    MeanVarianceNormalization RMSNormalization SimplifiedLayerNormalization SkipLayerNormalization
    SkipSimplifiedLayerNormalization"""
)
SOFTMAXES = operators("Hardmax LogSoftmax Softmax QLinearSoftmax")
# Their outputs are small and known when the graph is built, or cost nothing beside what uses them.
SHAPES = operators(
    """Constant ConstantOfShape EyeLike NonZero Range Shape Size BlackmanWindow HammingWindow HannWindow
    MelWeightMatrix"""
)

RESIZERS = operators("AffineGrid GridSample MaxUnpool Resize RoiAlign Upsample")

QUANTIZERS = operators("DequantizeLinear DynamicQuantizeLinear QuantizeLinear")


def plain_kind(operator: str) -> Kind:
    """The kind of an operator; "other" where nothing here knows it."""
    groups: tuple[tuple[frozenset[str], Kind], ...] = (
        (POINTWISE, "pointwise"),
        (VIEWS, "view"),
        (COPIES, "copy"),
        (REDUCTIONS, "reduce"),
        (POOLS, "pool"),
        (NORMS, "norm"),
        (SOFTMAXES, "softmax"),
        (RESIZERS, "resize"),
    )
    for members, kind in groups:
        if operator in members:
            return kind
    return "other"
