// The whole of billfish. Start here and read in this order.
#pragma once

// clang-format off: the order is for readers
#include "billfish/backend.h"        // which kernel runs, and why each other does not
#include "billfish/chat_template.h"  // messages -> prompt
#include "billfish/checkpoint.h"     // Hugging Face folders and safetensors files
#include "billfish/context.h"        // threads and scratch memory of a call
#include "billfish/cuda.h"           // GPUs: memory, streams, graphs
#include "billfish/generate.h"       // sampling, text, perplexity
#include "billfish/kernels.h"        // GPU kernels: listing, compiling ahead, removing
#include "billfish/limits.h"         // what this machine can do at most
#include "billfish/linear.h"         // y = x . W^T
#include "billfish/model.h"          // a whole language model
#include "billfish/moe.h"            // Mixture-of-Experts block
#include "billfish/npy.h"            // token ids from .npy files
#include "billfish/quantize.h"       // checkpoint -> quantised checkpoint
#include "billfish/scheme.h"         // what stored numbers mean
#include "billfish/status.h"         // how failure is reported
#include "billfish/tensor.h"         // borrowed views that cross the API
#include "billfish/tokenizer.h"      // tokenizer.json
#include "billfish/version.h"
#include "billfish/weight.h"  // one quantised matrix or a stack of experts
// clang-format on
