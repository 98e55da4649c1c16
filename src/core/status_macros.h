// Early return on failure, for the library's own sources.
#pragma once

#include "billfish/status.h"

#define BILLFISH_CONCAT_INNER(a, b) a##b
#define BILLFISH_CONCAT(a, b) BILLFISH_CONCAT_INNER(a, b)

/// `BILLFISH_RETURN_IF_ERROR(Check(x));` leaves the function with the failed Status.
#define BILLFISH_RETURN_IF_ERROR(expr)                                                              \
  do {                                                                                              \
    if (::billfish::Status billfish_status = (expr); !billfish_status.ok()) return billfish_status; \
  } while (false)

/// `BILLFISH_ASSIGN_OR_RETURN(auto file, Open(path));` binds the value or leaves with the Status.
#define BILLFISH_ASSIGN_OR_RETURN(lhs, expr) BILLFISH_ASSIGN_OR_RETURN_IMPL(BILLFISH_CONCAT(billfish_result_, __LINE__), lhs, expr)
#define BILLFISH_ASSIGN_OR_RETURN_IMPL(result, lhs, expr) \
  auto result = (expr);                                   \
  if (!result.has_value()) return result.error();         \
  lhs = std::move(result).value()
