#include "tokenizer/jinja/text_form.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "core/status_macros.h"
#include "tokenizer/jinja/callable.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer::jinja {
namespace {

void AppendReprOfText(std::string_view text, std::string& out) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  out += quote;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == quote || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  out += quote;
}

Status AppendRepr(Runtime& runtime, const Value& value, std::string& out) {
  const Runtime::Level level(runtime);
  BILLFISH_RETURN_IF_ERROR(level.Check());
  BILLFISH_RETURN_IF_ERROR(runtime.Steps(1));
  if (value.is_undefined()) {
    out += "Undefined";
  } else if (value.is_none()) {
    out += "None";
  } else if (value.is_bool()) {
    out += value.boolean() ? "True" : "False";
  } else if (value.is_int()) {
    out += fmt::format("{}", value.integer());
  } else if (value.is_float()) {
    out += FloatText(value.number());
  } else if (value.is_text()) {
    BILLFISH_RETURN_IF_ERROR(runtime.TextBytes(value.text().size()));
    AppendReprOfText(value.text(), out);
  } else if (value.is_list()) {
    const List& list = value.list();
    const bool tuple = list.kind == List::Kind::kTuple;
    if (list.kind == List::Kind::kGenerator) return {ErrorCode::kInvalidArgument, "a generator was printed; put |list behind it"};
    out += tuple ? '(' : '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out += ", ";
      BILLFISH_RETURN_IF_ERROR(AppendRepr(runtime, list.items[i], out));
    }
    if (tuple && list.items.size() == 1) out += ',';
    out += tuple ? ')' : ']';
  } else if (value.is_dict()) {
    const bool name_space = value.dict().kind == Dict::Kind::kNamespace;
    out += name_space ? "<Namespace {" : "{";
    bool first = true;
    for (const Dict::Entry& entry : value.dict().entries) {
      if (!first) out += ", ";
      first = false;
      BILLFISH_RETURN_IF_ERROR(AppendRepr(runtime, entry.key, out));
      out += ": ";
      BILLFISH_RETURN_IF_ERROR(AppendRepr(runtime, entry.value, out));
    }
    out += name_space ? "}>" : "}";
  } else {
    return {ErrorCode::kInvalidArgument, fmt::format("a {} was printed", value.TypeName())};
  }
  return {};
}

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}

  Status Write(const Value& value, int depth) {
    const Runtime::Level level(runtime_);
    BILLFISH_RETURN_IF_ERROR(level.Check());
    BILLFISH_RETURN_IF_ERROR(runtime_.Steps(1));
    if (value.is_text()) {
      BILLFISH_RETURN_IF_ERROR(runtime_.TextBytes(value.text().size()));
      WriteText(value.text());
      return {};
    }
    if (value.is_list() && value.list().kind != List::Kind::kGenerator) return WriteList(value.list(), depth);
    if (value.is_dict() && value.dict().kind == Dict::Kind::kDict) return WriteDict(value.dict(), depth);
    BILLFISH_ASSIGN_OR_RETURN(const std::string_view scalar, Scalar(value));
    out_ += scalar;
    return {};
  }

  std::string Take() { return std::move(out_); }

 private:
  Result<std::string_view> Scalar(const Value& value) {
    if (value.is_none()) return std::string_view("null");
    if (value.is_bool()) return std::string_view(value.boolean() ? "true" : "false");
    if (value.is_int()) {
      scalar_ = fmt::format("{}", value.integer());
      return std::string_view(scalar_);
    }
    if (value.is_float()) {
      const double number = value.number();
      scalar_ = std::isnan(number) ? "NaN" : std::isinf(number) ? (number > 0 ? "Infinity" : "-Infinity") : FloatText(number);
      return std::string_view(scalar_);
    }
    return Status(ErrorCode::kInvalidArgument, fmt::format("tojson: an object of type {} has no JSON form", value.TypeName()));
  }

  Status NewLine(int depth) {
    if (!style_.indent) return {};
    BILLFISH_RETURN_IF_ERROR(runtime_.TextBytes(style_.indent->size() * static_cast<size_t>(depth)));
    out_ += '\n';
    for (int i = 0; i < depth; ++i) out_ += *style_.indent;
    return {};
  }

  Status WriteList(const List& list, int depth) {
    out_ += '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      BILLFISH_RETURN_IF_ERROR(NewLine(depth + 1));
      BILLFISH_RETURN_IF_ERROR(Write(list.items[i], depth + 1));
    }
    if (!list.items.empty()) BILLFISH_RETURN_IF_ERROR(NewLine(depth));
    out_ += ']';
    return {};
  }

  Status WriteDict(const Dict& dict, int depth) {
    std::vector<const Dict::Entry*> entries;
    for (const Dict::Entry& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      const auto by_text = [](const Dict::Entry* a, const Dict::Entry* b) {
        return a->key.is_text() && b->key.is_text() && a->key.text() < b->key.text();
      };
      if (std::all_of(entries.begin(), entries.end(), [](const Dict::Entry* e) { return e->key.is_text(); })) {
        std::sort(entries.begin(), entries.end(), by_text);
      }
    }
    out_ += '{';
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      BILLFISH_RETURN_IF_ERROR(NewLine(depth + 1));
      if (entries[i]->key.is_text()) {
        WriteText(entries[i]->key.text());
      } else {
        BILLFISH_ASSIGN_OR_RETURN(const std::string_view scalar, Scalar(entries[i]->key));
        WriteText(scalar);
      }
      out_ += style_.key_separator;
      BILLFISH_RETURN_IF_ERROR(Write(entries[i]->value, depth + 1));
    }
    if (!entries.empty()) BILLFISH_RETURN_IF_ERROR(NewLine(depth));
    out_ += '}';
    return {};
  }

  void WriteText(std::string_view text) {
    out_ += '"';
    for (size_t i = 0; i < text.size();) {
      const Utf8Unit unit = Utf8At(text, i);
      WriteCharacter(unit.code_point, text.substr(i, unit.length));
      i += unit.length;
    }
    out_ += '"';
  }

  void WriteCharacter(char32_t c, std::string_view bytes) {
    static constexpr std::string_view kFrom = "\"\\\b\f\n\r\t", kTo = "\"\\bfnrt";
    const size_t simple = c < 0x80 ? kFrom.find(static_cast<char>(c)) : std::string_view::npos;
    if (simple != std::string_view::npos) {
      out_ += '\\';
      out_ += kTo[simple];
    } else if (c < 0x20 || (style_.ensure_ascii && c > 0x7F && c < 0x10000)) {
      out_ += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else if (style_.ensure_ascii && c >= 0x10000) {
      const uint32_t v = static_cast<uint32_t>(c) - 0x10000;
      out_ += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (v >> 10), 0xDC00 + (v & 0x3FF));
    } else {
      out_ += bytes;
    }
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  std::string out_;
  std::string scalar_;
};

}  // namespace

std::string FloatText(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  // Shortest digits that round-trip, "d.ddde+XX"; then laid out as Python does: exponents below -4 or from 16 on keep the e.
  std::array<char, 40> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number, std::chars_format::scientific).ptr;
  const std::string_view shortest(buffer.data(), static_cast<size_t>(end - buffer.data()));
  const size_t e = shortest.find('e');
  int exponent = 0;
  std::from_chars(shortest.data() + e + (shortest[e + 1] == '+' ? 2 : 1), shortest.data() + shortest.size(), exponent);
  if (exponent < -4 || exponent >= 16) return std::string(shortest);
  const auto fixed_end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number, std::chars_format::fixed).ptr;
  std::string text(buffer.data(), fixed_end);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

Result<std::string> ToRepr(Runtime& runtime, const Value& value) {
  std::string out;
  BILLFISH_RETURN_IF_ERROR(AppendRepr(runtime, value, out));
  return out;
}

Result<std::string> ToText(Runtime& runtime, const Value& value) {
  if (value.is_undefined()) return std::string();
  if (value.is_text()) {
    BILLFISH_RETURN_IF_ERROR(runtime.TextBytes(value.text().size()));
    return value.text();
  }
  return ToRepr(runtime, value);
}

Result<std::string> ToJson(Runtime& runtime, const Value& value, const JsonStyle& style) {
  JsonWriter writer(runtime, style);
  BILLFISH_RETURN_IF_ERROR(writer.Write(value, 0));
  return writer.Take();
}

}  // namespace billfish::tokenizer::jinja
