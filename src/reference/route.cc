#include "reference/route.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

namespace billfish::reference {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

void Softmax(std::vector<double>& values) {
  const double top = *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (double& value : values) sum += value = std::exp(value - top);
  for (double& value : values) value /= sum;
}

std::vector<double> Scores(std::span<const double> logits, RouterRule::Score score) {
  std::vector<double> scores(logits.begin(), logits.end());
  switch (score) {
    case RouterRule::Score::kSoftmax:
      Softmax(scores);
      break;
    case RouterRule::Score::kTopKSoftmax:
      break;  // the softmax comes after the choice
    case RouterRule::Score::kSigmoid:
      for (double& value : scores) value = 1.0 / (1.0 + std::exp(-value));
      break;
    case RouterRule::Score::kSqrtSoftplus:
      for (double& value : scores) value = std::sqrt(std::max(value, 0.0) + std::log1p(std::exp(-std::fabs(value))));
      break;
  }
  return scores;
}

// Experts outside the topk_group best groups can no longer be chosen. A group counts as much as its two best experts together.
void KeepBestGroups(std::vector<double>& choice, int64_t n_group, int64_t topk_group) {
  const size_t size = choice.size() / static_cast<size_t>(n_group);
  std::vector<double> worth;
  for (int64_t g = 0; g < n_group; ++g) {
    std::vector<double> members(choice.begin() + g * static_cast<int64_t>(size), choice.begin() + (g + 1) * static_cast<int64_t>(size));
    std::sort(members.begin(), members.end(), std::greater<>());
    worth.push_back(members[0] + (size > 1 ? members[1] : 0.0));
  }
  std::vector<size_t> order(static_cast<size_t>(n_group));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return worth[a] > worth[b]; });
  for (size_t rank = static_cast<size_t>(topk_group); rank < order.size(); ++rank) {
    std::fill_n(choice.begin() + static_cast<int64_t>(order[rank] * size), size, kNever);
  }
}

}  // namespace

Route RouteToken(std::span<const double> logits, const RouterRule& rule, int32_t token_id) {
  const auto top_k = static_cast<size_t>(rule.top_k);
  const std::vector<double> scores = Scores(logits, rule.score);
  Route route;
  if (!rule.hash_table.empty()) {
    const auto first = rule.hash_table.begin() + static_cast<int64_t>(token_id) * rule.top_k;
    route.ids.assign(first, first + rule.top_k);
  } else {
    std::vector<double> choice = scores;
    for (size_t e = 0; e < rule.correction.size(); ++e) choice[e] += rule.correction[e];
    if (rule.n_group > 1) KeepBestGroups(choice, rule.n_group, rule.topk_group);
    std::vector<int32_t> order(choice.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return choice[static_cast<size_t>(a)] > choice[static_cast<size_t>(b)]; });
    route.ids.assign(order.begin(), order.begin() + static_cast<int64_t>(top_k));
  }
  for (int32_t id : route.ids) route.weights.push_back(scores[static_cast<size_t>(id)]);
  if (rule.score == RouterRule::Score::kTopKSoftmax) Softmax(route.weights);
  if (rule.renormalize) {
    const double sum = std::accumulate(route.weights.begin(), route.weights.end(), 1e-20);
    for (double& weight : route.weights) weight /= sum;
  }
  for (double& weight : route.weights) weight *= rule.routed_scaling;
  return route;
}

}  // namespace billfish::reference
