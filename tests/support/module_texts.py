"""Integer modules in textual form that several tests start from."""

SMALL = """
hqc.module @small version 1 state integer ir 10 opset 18, qonnx 1 {
  input %x : float32[N,3]
  const %s : float32[] = 0.25
  const %s2 : float32[] = 0.5
  const %z : float32[] = 0.0
  const %four : float32[] = 4.0
  const %three : float32[] = 3.0
  const %w : float32[3,2] as fixed<3,2> = [[1.0, -0.5], [0.5, 1.5], [-2.0, 0.0]]
  const %bias : float32[2] as fixed<4,2> in [-4, 1]*2^-2 = [0.25, -1.0]
  const %m : float32[2] as ufixed<2,0> = [0.5, 0.75]
  const %w2 : float32[2,1] as fixed<2,2> = [[1.0], [-1.0]]
  const %t : float32[1,3] = [[-1.0, 0.0, 2.0]]
  %x0 = qonnx.Quant(%x, %s, %z, %four) : float32[N,3] as fixed<4,2,RND_CONV,SAT> in [-8, 7]*2^-2
  %acc = MatMul(%x0, %w) : float32[N,2] as fixed<7,4> in [-52, 53]*2^-3 "fc1"
  %sum = Add(%acc, %bias) : float32[N,2] as fixed<7,4> in [-50, 55]*2^-3
  %pos = Relu(%sum) : float32[N,2] as ufixed<6,3> in [0, 55]*2^-3
  %scaled = Mul(%pos, %m) : float32[N,2] as ufixed<7,2> in [0, 110]*2^-5
  %x1 = qonnx.Quant(%scaled, %s2, %z, %three) {signed = 0}
      : float32[N,2] as ufixed<3,2> in [0, 7]*2^-1
  %acc2 = MatMul(%x1, %w2) : float32[N,1] as fixed<4,3> in [-4, 7]*2^-1 "fc2"
  %y = qonnx.MultiThreshold(%acc2, %t) {out_scale = 1.0, out_bias = 0.0, out_dtype = "UINT2"}
      : float32[N,1] as ufixed<2,2> in [0, 3]
  %p = Softmax(%y) {axis = 1} : float32[N,1]
  output %p
}
"""
