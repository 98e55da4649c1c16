#!/bin/sh
# Runs every kernel of src/cuda/kernels on small shapes under NVIDIA's compute-sanitizer, on a machine with a GPU and the CUDA toolkit:
#   scripts/gpu_sanitize.sh [BUILD [TOOL...]]
# BUILD is a built tree (default: build), TOOL one of memcheck, racecheck, initcheck, synccheck (default: memcheck racecheck).
# What racecheck still reports, and why it is no race as far as is known: bench/results/h200/README.md.
# Fails at the first report. BILLFISH_SANITIZE_ONLY limits it to the kernel files that this extended regular expression finds.
set -eu
cd "$(dirname "$0")/.."
build=${1:-build}
if [ $# -gt 0 ]; then shift; fi
if [ $# -eq 0 ]; then set -- memcheck racecheck; fi

# Each kernel file and the tests of cuda_test that run it. A test holds this list to the folder and to the tests that there are.
kernels() {
  cat <<'END'
argmax.cu                       ModelOpsTest.ArgmaxTakesTheFirstOfTheLargest
attention_decode.cu             Attention.RowsOfADecodeAreTheirOwnSequences
attention_prefill.cu            Attention.ATokenOfAPrefillDoesNotDependOnItsNeighbours
embedding.cu                    ModelOpsTest.EmbeddingCopiesTheRowsOfItsIds
gather_columns.cu               GatherColumns.*
linear_plain.cu                 ModelOpsTest.PlainWeightsKeepAllTheirBits
moe_combine.cu                  CudaMoe.SkewedRoutingsAndSkippedSlotsAreRight
moe_route.cu                    Router.CorrectionAndGroupsSteerTheChoiceButNotTheWeights
moe_sort.cu                     CudaMoe.SkewedRoutingsAndSkippedSlotsAreRight
moe_sort_chunks.cu              CudaMoe.SortsAnyNumberOfSlotsByExpertAndKeepsTheirOrder
norm_route.cu                   Router.NormMatrixAndRuleAtOnceAreWhatTheyAreOneByOne
pack_tiles.cu                   TilePack.HoldsTheNumbersOfAwkwardShapes
read_probe.cu                   GpuTest.KernelsLoadOnceAndRun
rms_norm.cu                     ModelOpsTest.RmsNormAddsTheDeltaAndNormalisesTheSum
rope.cu                         ModelOpsTest.RopePlacesRotatedKeysAndPlainValuesInTheCache
vector_swiglu.cu                ModelOpsTest.SwigluIsTheDefinition
w16a16_linear_vector_sm80.cu    LinearDecode.MultipliesOneRowByFewColumns
w4a16_grouped_decode_sm80.cu    CudaMoe.RowsOfAnyAlignmentAreRead
w4a16_grouped_stream_sm80.cu    CudaMoe.HalfPrecisionActivationsAreRight
w4a16_grouped_tile_sm90a.cu     Kernels/GroupedTileCores.MultipliesByF16/Best
w4a16_held_moe_sm80.cu          CudaMoe.SkewedRoutingsAndSkippedSlotsAreRight
w4a16_held_moe_sm80.cu          Shapes/CudaMoeNormed.EqualsItsDefinition/E6
w4a16_linear_decode_sm80.cu     LinearDecode.MultipliesByF16
w4a16_linear_decode_sm90a.cu    LinearDecode.MultipliesByF16
w4a16_linear_tile_sm80.cu       Kernels/LinearTileCores.MultipliesByF16/MmaSync
w4a16_linear_tile_sm80.cu       Kernels/GroupedTileCores.MultipliesByF16/MmaSync
w4a16_linear_tile_sm90a.cu      Kernels/LinearTileCores.MultipliesByF16/Best
w4a16_token_moe_sm80.cu         CudaMoe.OneTokenIsRightWhateverTheNumberOfCtas
END
}

filter=$(kernels | grep -E "${BILLFISH_SANITIZE_ONLY:-.}" | awk '{printf "%s:", $2}')
for tool in "$@"; do
  printf '== %s\n' "$tool"
  compute-sanitizer --tool "$tool" --error-exitcode 1 --print-limit 20 "$build/tests/cuda_test" --gtest_filter="$filter" --gtest_brief=1
done
