#include "checkpoint/writer/write_plan.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <new>

#include "checkpoint/writer/durable_file.h"
#include "core/parallel.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

constexpr size_t kCopyBytes = 16u << 20;

// Lets go of pages of a mapped file that have been read. They stay in the system's cache and are mapped again on the next access, so
// this only keeps the process as small as the data it works on. `bytes` must come from Checkpoint::Read.
void GivePagesBack(std::span<const std::byte> bytes) {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

struct Step {
  const Item* item;
  int64_t e;
};

class ShardWriter {
 public:
  ShardWriter(const Checkpoint& source, const WriteSettings& settings, QuantizeProgress& progress)
      : source_(source), settings_(settings), progress_(progress) {}

  Status Write(const Plan& plan, const OutputShard& shard, const std::filesystem::path& path) {
    BILLFISH_ASSIGN_OR_RETURN(file_, DurableFile::Create(path, shard.layout.file_bytes));
    BILLFISH_RETURN_IF_ERROR(file_.Write(0, std::as_bytes(std::span<const char>(shard.layout.header))));
    for (size_t i = shard.first; i < shard.last; ++i) {
      for (int64_t e = 0; e < plan.items[i].steps(); ++e) steps_.push_back({&plan.items[i], e});
    }
    const int threads = std::min<int>(settings_.threads, static_cast<int>(std::min<size_t>(steps_.size(), 4096)));
    RunOnThreads(threads, [this](int) { Work(); });
    BILLFISH_RETURN_IF_ERROR(status_);
    return file_.Commit();
  }

 private:
  // No exception may leave a thread.
  void Work() {
    try {
      ItemEncoder encoder(source_, settings_.encoder);
      while (!stop_) {
        const size_t next = next_++;
        if (next >= steps_.size()) return;
        Finish(steps_[next], Run(encoder, steps_[next]));
      }
    } catch (const std::bad_alloc&) {
      Fail(Status(ErrorCode::kOutOfMemory, "there is not enough memory for one matrix per thread; use fewer threads"));
    }
  }

  Status Run(ItemEncoder& encoder, const Step& step) {
    if (step.item->action == Action::kCopy) return Copy(*step.item);
    BILLFISH_ASSIGN_OR_RETURN(const std::vector<Bytes> parts, encoder.Encode(*step.item, step.e));
    for (size_t i = 0; i < parts.size(); ++i) {
      const uint64_t bytes = step.item->tensors[i].bytes() / static_cast<uint64_t>(step.item->shape.E);
      if (parts[i].size() != bytes) {
        return {ErrorCode::kCorruptFile, fmt::format("{} became {} bytes where {} were planned: the source changed while it was read",
                                                     step.item->tensors[i].name, parts[i].size(), bytes)};
      }
      BILLFISH_RETURN_IF_ERROR(file_.Write(step.item->offsets[i] + bytes * static_cast<uint64_t>(step.e), parts[i].view()));
    }
    for (const std::string& input : step.item->inputs) {
      BILLFISH_ASSIGN_OR_RETURN(const Bytes all, source_.Read(input));
      const size_t share = all.size() / static_cast<size_t>(step.item->shape.E);
      GivePagesBack(all.view().subspan(share * static_cast<size_t>(step.e), share));
    }
    return OkStatus();
  }

  Status Copy(const Item& item) {
    BILLFISH_ASSIGN_OR_RETURN(const Bytes all, source_.Read(item.source));
    for (size_t done = 0; done < all.size(); done += kCopyBytes) {
      const std::span<const std::byte> piece = all.view().subspan(done, std::min(kCopyBytes, all.size() - done));
      BILLFISH_RETURN_IF_ERROR(file_.Write(item.offsets.front() + done, piece));
      GivePagesBack(piece);
    }
    return OkStatus();
  }

  void Fail(Status status) {
    const std::lock_guard lock(mutex_);
    if (status_.ok()) status_ = std::move(status);
    stop_ = true;
  }

  void Finish(const Step& step, Status status) {
    if (!status.ok()) return Fail(std::move(status));
    const std::lock_guard lock(mutex_);
    if (stop_) return;
    ++progress_.tensors_done;
    progress_.bytes_done += step.item->bytes() / static_cast<uint64_t>(step.item->steps());
    progress_.tensor = step.item->source;
    if (!settings_.progress || settings_.progress(progress_)) return;
    status_ =
        Status(ErrorCode::kCancelled, fmt::format("stopped after {} of {} tensors; finished shards are kept, so the same call goes on "
                                                  "from there",
                                                  progress_.tensors_done, progress_.tensors_total));
    stop_ = true;
  }

  const Checkpoint& source_;
  const WriteSettings& settings_;
  QuantizeProgress& progress_;
  DurableFile file_;
  std::vector<Step> steps_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;  // guards status_ and progress_
  Status status_;
};

}  // namespace

Status WriteShards(const Checkpoint& source, const Plan& plan, const WriteSettings& settings, OutputFolder& folder) {
  QuantizeProgress progress;
  progress.bytes_total = plan.bytes();
  for (const Item& item : plan.items) progress.tensors_total += item.steps();
  for (const OutputShard& shard : plan.shards) {
    if (folder.IsFinished(shard.name, shard.layout.file_bytes)) {
      for (size_t i = shard.first; i < shard.last; ++i) {
        progress.tensors_done += plan.items[i].steps();
        progress.bytes_done += plan.items[i].bytes();
      }
      progress.bytes_resumed = progress.bytes_done;
      continue;
    }
    ShardWriter writer(source, settings, progress);
    BILLFISH_RETURN_IF_ERROR(writer.Write(plan, shard, folder.File(shard.name)));
    BILLFISH_RETURN_IF_ERROR(folder.MarkFinished(shard.name, shard.layout.file_bytes));
  }
  return OkStatus();
}

}  // namespace billfish::checkpoint
