// Status and Result<T>: how every billfish function reports failure.
//
// No exception crosses the billfish API and the library never prints, aborts or exits. A message is a sentence that says what was
// asked, what was found and what to do, in that order, with the values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace billfish {

enum class ErrorCode : uint8_t {
  kOk,
  kInvalidArgument,  ///< an argument is outside what the function accepts
  kShapeMismatch,    ///< two shapes that must agree do not
  kUnsupported,      ///< well formed, but billfish has no implementation for it
  kNotFound,         ///< a file, tensor or name does not exist
  kCorruptFile,      ///< a file breaks the rules of its own format, or two files contradict each other
  kIo,               ///< the operating system refused a read or a write
  kOutOfMemory,      ///< an allocation failed or a caller-provided buffer is too small
  kCompile,          ///< a kernel could not be compiled on this machine
  kDevice,           ///< a device is missing or reported an error
  kCancelled,        ///< the caller's callback asked to stop
};

/// Lower-case name of a code, for example "corrupt file".
std::string_view ErrorCodeName(ErrorCode code);

/// A code and a sentence. Cheap when ok: no message is held.
class [[nodiscard]] Status {
 public:
  Status() = default;  ///< ok
  Status(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == ErrorCode::kOk; }
  ErrorCode code() const { return code_; }
  std::string_view message() const { return message_; }

  /// The same failure with "prefix: " in front of its message; ok stays ok.
  Status WithContext(std::string_view prefix) const;

 private:
  ErrorCode code_ = ErrorCode::kOk;
  std::string message_;
};

inline Status OkStatus() { return {}; }

/// Either a value or the Status that says why there is none. Spelled like std::expected, so that it can become one.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}         // NOLINT(google-explicit-constructor): `return value;`
  Result(Status status) : state_(std::move(status)) {}  // NOLINT(google-explicit-constructor): `return status;`

  bool has_value() const { return std::holds_alternative<T>(state_); }
  explicit operator bool() const { return has_value(); }
  bool ok() const { return has_value(); }

  /// Precondition: has_value().
  T& value() & { return *std::get_if<T>(&state_); }
  const T& value() const& { return *std::get_if<T>(&state_); }
  T&& value() && { return std::move(*std::get_if<T>(&state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  /// Precondition: !has_value().
  const Status& error() const { return *std::get_if<Status>(&state_); }
  /// OkStatus() or error().
  Status status() const { return has_value() ? OkStatus() : error(); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace billfish
