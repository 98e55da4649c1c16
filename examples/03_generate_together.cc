// Texts generated together: each step appends a token to every sequence of one cache, and a place that falls free takes the next prompt.
#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

#include "billfish/billfish.h"

namespace {

int Fail(const billfish::Status& status) {
  std::cerr << status.message() << "\n";
  return 1;
}

struct Text {
  std::string prompt;
  std::vector<int32_t> ids;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return Fail({billfish::ErrorCode::kInvalidArgument, "give the folder of a model with its tokenizer"});
  const auto model = billfish::Model::Load(argv[1], {.activation = billfish::DType::kBF16});
  if (!model) return Fail(model.error());
  const auto tokenizer = billfish::Tokenizer::Load(argv[1]);
  if (!tokenizer) return Fail(tokenizer.error());

  constexpr int64_t kPlaces = 3, kRoom = 64;
  constexpr size_t kNewTokens = 12, kNone = SIZE_MAX;
  std::vector<Text> texts = {{"In the beginning", {}}, {"And he said", {}}, {"The king", {}}, {"Then they went", {}}, {"My son", {}}};
  auto cache = model->NewCache(kRoom, kPlaces);
  if (!cache) return Fail(cache.error());
  billfish::Workspace workspace;
  billfish::ExecContext context{workspace, billfish::DefaultThreads()};

  std::vector<size_t> text_of(kPlaces, kNone);
  std::vector<int32_t> ids(kPlaces, 0);  // the last token of each sequence; a free place runs along on any
  size_t begun = 0, ended = 0;
  while (ended < texts.size()) {
    for (int64_t place = 0; place < kPlaces; ++place) {
      size_t& text = text_of[static_cast<size_t>(place)];
      int32_t& id = ids[static_cast<size_t>(place)];
      if (text != kNone) {
        texts[text].ids.push_back(id);
        if (texts[text].ids.size() < kNewTokens) continue;
        text = kNone;
        ++ended;
      }
      if (const auto status = cache->Truncate(0, place); !status.ok()) return Fail(status);
      if (begun == texts.size()) continue;
      const auto prompt = tokenizer->Encode(texts[begun].prompt, true);
      if (!prompt) return Fail(prompt.error());
      const auto first = model->ForwardGreedy(*prompt, *cache, context, place);
      if (!first) return Fail(first.error());
      text = begun++;
      id = *first;
      texts[text].ids.push_back(id);
    }
    if (const auto status = model->DecodeStepGreedy(ids, *cache, ids, context); !status.ok()) return Fail(status);
  }
  for (const Text& text : texts) {
    const auto words = tokenizer->Decode(text.ids, true);
    if (!words) return Fail(words.error());
    std::cout << text.prompt << *words << "\n";
  }
  return 0;
}
