// PanelStore: CPU weights in their packed form, kept in a folder, so that the next run maps them instead of reading and packing again.
//
// One file per matrix. Its name and its header hold the identity of what it was packed from; a file of another identity, of another
// version of the form, damaged or cut off counts as absent and is written anew. Failure to write is reported, never an error. Several
// processes may use one folder at once, and mapped memory is shared between them. Files may be deleted at any time: mapped ones live on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace billfish {

class PanelStore {
 public:
  struct Report {
    int64_t mapped = 0, written = 0;
    size_t mapped_bytes = 0, written_bytes = 0;
    std::string note;  ///< why an existing entry was not used or a new one not written, the first such reason; empty if none
  };

  /// `identity` stands for everything the weights are made from. The folder is made when the first entry is written.
  PanelStore(std::filesystem::path folder, std::string identity);
  ~PanelStore();
  PanelStore(PanelStore&&) noexcept;
  PanelStore& operator=(PanelStore&&) noexcept;

  /// Since construction. Any thread.
  Report report() const;

  struct Impl;  ///< opaque
  Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

/// A matrix's place in a store; without store it means none.
struct PanelEntry {
  const PanelStore* store = nullptr;
  std::string name;  ///< unique within the identity
};

}  // namespace billfish
