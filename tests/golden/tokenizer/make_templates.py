"""Makes the chat template goldens with Jinja2. Run: pip install Jinja2==3.1.6 && python make_templates.py

The environment is the one that model folders are written for: immutable sandbox, trim_blocks, lstrip_blocks, loop controls, and the
functions raise_exception, strftime_now and tojson without HTML escapes.
"""
import datetime
import json
import pathlib

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).parent
NOW = 1718456789  # 2024-06-15 13:06:29 UTC; the tests run with TZ=UTC


class Refused(Exception):
    pass


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller):
        return caller()


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise Refused(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(f)
    return env


TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Tells the weather of a \"city\" <now>", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "Name, e.g. \"Köln\""}, "days": {"type": "integer", "enum": [1, 3, 7]},
                                     "units": {"type": ["string", "null"], "default": "metric"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["city"]}}}, {"type": "function", "function": {"name": "add", "description": "Adds", "parameters": {"type": "object", "properties": {
        "a": {"type": "number"}, "b": {"type": "number"}}}}}]

CHAT = [{"role": "user", "content": "Hi there"}]
LONG = [{"role": "system", "content": "You are terse.\n"}, {"role": "user", "content": " What is 2+2? "}, {"role": "assistant", "content": "4\n\n"}, {"role": "user", "content": "And 'π' \"<b>\" ?"}]
CALLS = LONG[:2] + [{"role": "assistant", "content": "", "reasoning_content": "\nI should call.\n", "tool_calls": [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 3}}},
    {"id": "call_2", "type": "function", "function": {"name": "add", "arguments": {"a": 1.5, "b": -2e-7, "c": None, "d": True}}}]},
    {"role": "tool", "content": "{\"sun\": true}", "tool_call_id": "call_1", "name": "weather"}, {"role": "tool", "content": "[1, 2]", "tool_call_id": "call_2"},
    {"role": "assistant", "content": "<think>\nhmm\n</think>\n\nSunny."}, {"role": "user", "content": "Thanks"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image"}, {"type": "text", "text": "what is it?"}]}, {"role": "assistant", "content": None}]
CHATS = {"one": CHAT, "long": LONG, "calls": CALLS, "parts": PARTS, "none": [], "twice": CHAT + CHAT, "system only": LONG[:1]}

# Expressions, each printed by itself with the variables below.
EXPRESSIONS = r"""
1 + 2 * 3 - 4 / 2 // 1 % 5 ** 2
7 // 2, -7 // 2, 7 // -2, 7 % 3, -7 % 3, 7 % -3, 7.5 // 2, -7.5 % 2
2 ** 10, 2 ** -1, -2 ** 2, 2 ** 3 ** 2, 1e3, 1.5e-7, 1e16, 1e15, 123456789.0, 0.1 + 0.2, 1/3, 100.0, 1e22, 5e-324
0x1F, 1_000, 10 / 5, 3.0 // 1, true + 1, - - 3, +4
'a' ~ 1 ~ none ~ 2.0 ~ [1, 'b'] ~ {'k': none} ~ (1,) ~ true
"it's" ~ 'a\n\t\\ \x41\u00e9\U0001F600\101' 'joined'
['it\'s', "q\"", 'both \' "', 'new\nline', 'tab\t', 'é', '\x01\x7f']
a if b else c, a if undefined_name, 'x' if none else 'y' if false else 'z'
1 < 2 < 3, 1 < 3 < 2, 1 == 1.0, '1' == 1, none == none, [1, 2] == [1, 2], (1, 2) == [1, 2], {'a': 1} == {'a': 1.0}, true == 1
'b' in 'abc', 'd' not in 'abc', 2 in [1, 2], 'k' in {'k': 0}, 'x' in undefined_name, '' in '', none in [none], 1 in (1, 2)
not true, not 0, not '', not [], not {}, not none, not undefined_name, not 0.0, not 'a'
none or 'x', 0 or [], 'a' and 'b', '' and 'b', undefined_name or 'd'
s[0], s[-1], s[1:3], s[::-1], s[:2], s[-3:], s[::2], s[5:1:-2], s[10:], s[-100:100], nums[1:], nums[::-1], nums[-2:0:-1], nums[:-1]
s[99] is defined, nums[99] is undefined, d['zz'] is defined, d.zz is defined, none.x is defined, nums.x is defined, s['upper'] is callable
d.b, d['b'], d.list[1], d.inner.x, d['inner']['x'], d.get('b'), d.get('zz'), d.get('zz', 5), d['items'] is defined
d | length, s | length, nums | length, [] | length, undefined_name | length, 'é😀' | length
d.items() | list, d.keys() | list, d.values() | list, d | list, 'abc' | list, (1, 2) | list
d | items | list, d | dictsort, d | dictsort(by='value') if false else 0, {'B': 1, 'a': 2} | dictsort, {'B': 1, 'a': 2} | dictsort(true), {'x': 3, 'y': 1} | dictsort(by='value', reverse=true)
s | upper, s | lower, s | capitalize, 'hello wORLD-foo (bar' | title, ' x ' | trim, 'xxaxx' | trim('x'), '' | upper, 'straße' | upper
s.upper(), s.lower(), s.title(), s.capitalize(), s.strip('H!'), s.lstrip('H'), s.rstrip('!'), ' a '.strip() ~ '|', '\n a'.lstrip() ~ '|', "they're here".title()
s.startswith('He'), s.endswith('!'), s.startswith(('x', 'H')), s.find('o'), s.rfind('o'), s.find('zz'), s.index('W'), s.count('o'), s.count('')
'a,b,,c'.split(','), 'a,b,c'.split(',', 1), ' a  b '.split(), 'a b c'.split(none, 1), 'a,b,c'.rsplit(',', 1), ''.split(','), ''.split(), 'a\nb\r\nc\n'.splitlines(), 'a b c'.split(maxsplit=1)
'a</think>b'.split('</think>')[-1].lstrip('\n'), 'a=b=c'.partition('='), 'a=b=c'.rpartition('='), 'abc'.partition('x'), 'abc'.rpartition('x')
'aaa'.replace('a', 'b'), 'aaa'.replace('a', 'b', 2), 'ab'.replace('', '-'), 'aaa' | replace('a', 'b', 1), 'é'.replace('é', 'e'), 5 | replace('5', '6')
'-'.join(['a', 'b']), ', '.join('abc'), nums | join, nums | join('-'), people | join(', ', attribute='name'), [] | join('x')
'abc'.removeprefix('a'), 'abc'.removesuffix('c'), 'abc'.removeprefix('x'), '7'.zfill(3), '-7'.zfill(4), 'a'.ljust(3) ~ '|', 'a'.rjust(3), 'ab'.center(5, '*'), 'a'.center(4, '*')
'12'.isdigit(), ''.isdigit(), 'ab'.isalpha(), 'a1'.isalnum(), ' '.isspace(), 'AB'.isupper(), 'ab'.islower(), 'A1'.isupper(), '1'.isupper()
'{} and {}'.format(1, 'b'), '{1}{0}'.format('a', 'b'), '{x}'.format(x=3), '{{}}'.format()
undefined_name | default('d'), none | default('d'), '' | default('d', true), none | default('d', true), 0 | d('x', boolean=true), undefined_name | default, 'v' | default('d')
nums | first, nums | last, [] | first is defined, 'abc' | first, 'abc' | last, nums | sum, nums | min, nums | max, [1.5, 2] | sum, people | sum(attribute='age')
nums | sort, nums | sort(reverse=true), ['b', 'A', 'c'] | sort, ['b', 'A', 'c'] | sort(case_sensitive=true), people | sort(attribute='age') | map(attribute='name') | list
nums | reverse | list, 'abc' | reverse, [3, 1, 3, 2, 1] | unique | list, ['a', 'A', 'b'] | unique | list, people | map(attribute='name') | list, ['a', 'b'] | map('upper') | list
people | map(attribute='zz', default='none') | list, people | selectattr('age', 'gt', 30) | map(attribute='name') | list, people | rejectattr('age', 'gt', 30) | list | length
people | selectattr('name', 'equalto', 'Ann') | list | length, people | selectattr('vip') | map(attribute='name') | list, people | selectattr('zz', 'defined') | list, people | rejectattr('zz', 'undefined') | list
nums | select('odd') | list, nums | reject('even') | list, nums | select('divisibleby', 2) | list, [0, 1, '', 'a', none] | select | list, ['a', 1, none] | select('string') | list, nums | select('in', [1, 2]) | list
'3' | int, 'x' | int, 'x' | int(7), '3.9' | int, 3.9 | int, -3.9 | int, '0x1A' | int(0, 16) if false else 1, 'ff' | int(base=16), true | int, none | int, '1_0' | int, ' 12 ' | int
'3.5' | float, 'x' | float, 'x' | float(1.5), 3 | float, '1e3' | float, 3 | string, none | string, [1] | string, true | string
-3 | abs, 2.5 | round, 3.5 | round, 2.567 | round(2), 2.1 | round(0, 'ceil'), 2.9 | round(method='floor'), 'a b  c' | wordcount, -1.5 | abs
'a\nb\n\nc' | indent, 'a\nb' | indent(2), 'a\nb' | indent(2, true), 'a\n\nb' | indent(2, false, true), 'a\nb' | indent('>> '), 'a\nb\n' | indent(1) ~ '|', '' | indent(2, true) ~ '|'
'<a href="x">&\'' | escape, '<b>' | e, 'x' | safe
d | tojson, nums | tojson, s | tojson, none | tojson, true | tojson, 1.0 | tojson, 'é😀\n"\\/<>&' | tojson, '\x01\x1f\x7f' | tojson
d | tojson(indent=2), [] | tojson(indent=2), {} | tojson(indent=4), [[], {}] | tojson(indent=1), {'b': 1, 'a': [1, {'z': 0}]} | tojson(sort_keys=true), 'é😀' | tojson(ensure_ascii=true), {'a': 1, 'b': [1, 2]} | tojson(separators=(',', ':'))
{1: 'a', none: 'b', true: 'c', 2.5: 'd'} | tojson, (1, 2) | tojson, {'a': (1,)} | tojson
s is string, 1 is string, none is none, 1 is number, true is number, 1.5 is float, 1 is integer, true is integer, 1 is float, true is boolean, 1 is boolean, d is mapping, s is mapping, nums is mapping
s is iterable, 1 is iterable, nums is iterable, d is iterable, s is sequence, nums is sequence, d is sequence, 1 is sequence, range is callable, 1 is callable, undefined_name is iterable
true is true, 1 is true, false is false, 0 is false, 3 is odd, 4 is even, 9 is divisibleby 3, 9 is divisibleby(2), 'A' is upper, 'a' is lower, 3 is eq 3, 3 is ne 4, 3 is lt 4, 4 is ge 4, 1 is in [1], 'a' is sameas 'a', none is sameas none
undefined_name is defined, s is defined, s is not defined, not s is defined, undefined_name is undefined, s is not none and nums is iterable
range(5) | list, range(2, 5) | list, range(5, 0, -2) | list, range(0) | list, dict(a=1, b='x'), dict({'a': 1}, c=2), dict([('k', 'v')]), [1, 2] + [3], (1,) + (2,), 'ab' * 3, [0] * 2, 3 * 'x', [1] * 0, 'a' * -1
[1, [2, [3]]], {'a': {'b': [1, 2.0, none, true]}}, (), (1,), [], {}, ((1, 2), 3), [undefined_name] | length
nums | map('string') | join('+'), (nums | sort)[0], (nums | join(','))[::-1], -nums | first if false else 0, -1 | abs, (-1) | abs, 2 * 3 | string, d.list | map('upper') | join
strftime_now('%Y-%m-%d %H:%M:%S'), strftime_now('%d %b %Y'), strftime_now('%A, %B %d'), strftime_now('%%')
'a' < 'b', 'a' < 'B', [1, 2] < [1, 3], (1,) < (1, 0), 'é' > 'z', 1 < 1.5, 2 >= 2.0
nums.index(2), nums.count(1), d.copy() == d, nums.copy()
(namespace(a=1)).a, namespace({'b': 2}).b, namespace(x=1).y is defined
people[0].name, people.0.name, people[-1]['name'], people[0]['age'] + 1, (people | first).name, (people | last).name.upper()[0]
range is callable, range is defined, namespace is defined, raise_exception is defined, self is defined and false, loop is defined, caller is defined
""".strip().split("\n")
VARIABLES = {"a": "A", "b": True, "c": "C", "s": "Hello World!", "nums": [3, 1, 2], "d": {"b": 1, "list": ["x", "y"], "inner": {"x": None}, "é": "ü"},
             "people": [{"name": "Ann", "age": 41, "vip": True}, {"name": "bob", "age": 7, "vip": False}]}

# Whole templates, each rendered with VARIABLES.
SNIPPETS = [
    "", "x", "x\n", "x\n\n", "\n\nx", "a\r\nb\rc\n", "{{ a }}\n", "{{ a }}\n\n", "{{ undefined_name }}|", "{{ none }}|", "{# c #}x", "{# c #}\nx", " {# c #}\nx", "a {# c #} b\n c",
    "{% if b %}\nyes\n{% endif %}\nend", "  {% if b %}\n  yes\n  {% endif %}\n  end", "a {% if b %} yes {% endif %} b", "{%- if b -%}\n  yes  \n{%- endif -%}\n end", "  {%+ if b %}\n x {% endif %}", "x {%- if b %} y {% endif -%} z",
    "{{- a -}}  x", "  {{- a }} x", "  {{ a -}}\n\n  x", "{% if b +%}\nkept\n{% endif +%}\nkept", "{# a -#}   x", "   {#- a #} x", "a\n   {#- a -#}  \nx", "{%if b%}{%endif%}", "{% if b %}\n\n{% endif %}\n\nx",
    "\t{% if b %}\t\n\tx\n\t{% endif %}\t\ny", "{% raw %}{{ a }} {% if %}{% endraw %}", "{% raw %}\n {{ a }}\n{% endraw %}\nx", "a {%- raw -%}  x  {%- endraw -%} b", "{{ '{{' }}{{ '%}' }}{{ \"}}\" }}", "{{ {'a': {'b': 1}} }}", "{{ {'a': 1}['a'] }}{{ [{}] }}",
    "{% if false %}1{% elif none %}2{% elif b %}3{% else %}4{% endif %}", "{% if false %}1{% else %}2{% endif %}", "{% if undefined_name %}1{% endif %}|", "{% if nums and d.b == 1 and not false %}ok{% endif %}",
    "{% for x in nums %}{{ x }},{% endfor %}", "{% for x in [] %}{{ x }}{% else %}none{% endfor %}", "{% for x in nums if x > 1 %}{{ loop.index }}:{{ x }}/{{ loop.length }} {% endfor %}", "{% for x in nums if x > 9 %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in nums %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}",
    "{% for x in nums %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{{ loop.previtem }}-{{ loop.nextitem }};{% endfor %}", "{% for x in nums %}{{ loop.cycle('odd', 'even') }} {{ loop.changed(x // 2) }} {% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for c in s %}{{ c }}.{% endfor %}", "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for x in undefined_name %}x{% else %}empty{% endfor %}",
    "{% for x in nums %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in nums %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in nums %}{% for y in nums %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}",
    "{% set x = 1 %}{% for y in nums %}{% set x = x + y %}{{ x }}{% endfor %}{{ x }}", "{% set x = 1 %}{% if b %}{% set x = 2 %}{% endif %}{{ x }}", "{% set ns = namespace(n=0, found=false) %}{% for y in nums %}{% set ns.n = ns.n + y %}{% endfor %}{{ ns.n }}{{ ns.found }}",
    "{% set x, y = 1, 2 %}{{ x }}{{ y }}", "{% set t = 1, 2 %}{{ t }}", "{% set x %}a {{ s }}\n{% endset %}[{{ x }}]", "{% set x | upper | trim %}  a {{ s }}\n{% endset %}[{{ x }}]", "{% set outer = 'o' %}{% set x %}{% set outer = 'i' %}{{ outer }}{% endset %}{{ x }}{{ outer }}",
    "{% macro m(x, y=2, z=x) %}{{ x }}{{ y }}{{ z }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, z=5) }} {{ m(y=1, x=0) }}", "{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m() }}{{ m(m(1)) }}", "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, k=3) }}",
    "{% macro fact(n) %}{% if n > 1 %}{{ n * (fact(n - 1) | int) }}{% else %}1{% endif %}{% endmacro %}{{ fact(10) }}", "{% macro m() %}{{ later }}{% endmacro %}{% set later = 'x' %}{{ m() }}", "{% macro m() %}{% set q = 1 %}{{ q }}{% endmacro %}{{ m() }}{{ q is defined }}",
    "{% macro m(x) -%}\n  {%- for y in x %}\n    {{- y }}\n  {%- endfor %}\n{%- endmacro %}\n{{ m(nums) }}|", "{% macro wrap() %}<{{ caller() }}>{% endmacro %}{% call wrap() %}x{{ a }}{% endcall %}", "{% macro each(xs) %}{% for x in xs %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(x) each(nums) %}({{ x }}){% endcall %}",
    "{% filter upper %}abc {{ a | lower }}{% endfilter %}", "{% filter replace('a', 'b') | trim %} aaa {% endfilter %}|", "{% with x = 1, y = a %}{{ x }}{{ y }}{% endwith %}{{ x is defined }}", "{% generation %}gen {{ a }}{% endgeneration %}", "{% for x in nums %}{% generation %}{{ x }}{% endgeneration %}\n{% endfor %}",
    "{% for x in [{'n': 1, 'c': [{'n': 2, 'c': []}]}] recursive %}{{ x.n }}{{ loop.depth }}({{ loop(x.c) }}){% endfor %}", "{{ 1, 2 }}", "{{ 'a' 'b' }}", "{{ (1 if b else 2) + 3 }}", "{{ nums | map(attribute='x') | list }}", "{% set g = nums | select('odd') %}{{ g | list }}{{ g | list }}{{ 1 if g else 2 }}",
    "{% for x in nums | reverse %}{{ x }}{% endfor %}", "{% for x in nums[1:] + [9] %}{{ x }}{% endfor %}", "{% for i in range(3) %}{{ i }}{{ ',' if not loop.last }}{% endfor %}", "{{ d.items() | length }}{{ d.b.x is defined }}", "{% set x = {'a': 1, 'b': 2} %}{{ x.a + x['b'] }}",
    "{%- set ns = namespace(last=none) -%}\n{%- for m in people -%}\n  {%- if m.vip -%}{%- set ns.last = loop.index0 -%}{%- endif -%}\n{%- endfor -%}\n{{ ns.last }}", "{{ loop }}|", "{% for x in 'ab' %}{% set outer = loop %}{% for y in 'cd' %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "line1\n  {%- if b %}\n  line2\n  {%- endif %}\nline3\n", "{%- for x in nums %}\n    {{- '<' ~ x ~ '>' }}\n{%- endfor %}", "a{% set x = 1 %}\n\nb", "{% set x = 1 %}   \nb", "{{ a }}{% if b %} {{ c }}{% endif %}\n", "{# one #}{# two #}\n{# three #}\nx", "é{{ 'ü' }}😀\n",
]

REFUSALS = ["{{ raise_exception('no ' ~ a) }}", "{% if not x is defined %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}"]

# Templates in the manner of the families; the real ones use the same parts of the language.
TEMPLATES = {
    "chatml": """{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' + (m.content or '') + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "thinking": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages and messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages and messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages | length - 1) %}
{%- for m in messages[::-1] %}
    {%- set i = (messages | length - 1) - loop.index0 %}
    {%- if ns.searching and m.role == "user" and m.content is string and not (m.content.startswith('<tool>') and m.content.endswith('</tool>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = i %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- if m.content is string %}
        {%- set content = m.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif m.role == 'assistant' %}
        {%- set thought = '' %}
        {%- if m.reasoning_content is string %}
            {%- set thought = m.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {%- for call in m.tool_calls or [] %}
            {%- if (loop.first and content) or not loop.first %}{{- '\\n' }}{%- endif %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif m.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "headers": """{{- bos_token }}
{%- if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start|>system<|end|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start|>' + message['role'] + '<|end|>\\n\\n' }}
        {%- if message['content'] is string %}{{ message['content'] | trim }}
        {%- elif message['content'] is iterable %}
            {%- for part in message['content'] %}
                {%- if part['type'] == 'image' %}{{ '<|image|>' }}{%- elif part['type'] == 'text' %}{{ part['text'] }}{%- endif %}
            {%- endfor %}
        {%- endif %}
        {{- '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- for call in message.tool_calls %}
            {%- set call = call.function %}
            {{- '{"name": "' + call.name + '", ' }}{{- '"parameters": ' }}{{- call.arguments | tojson }}{{- "}" }}
        {%- endfor %}
        {{- "<|eot|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start|>ipython<|end|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>\\n\\n' }}{%- endif %}
""",
    "alternating": """{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}
{% endfor %}
""",
    "typescript": """{#- Turns a JSON schema into a type. #}
{%- macro render_type(spec, is_nullable=false) -%}
    {%- if spec.type == "array" -%}
        {%- if spec['items'] -%}{{- render_type(spec['items']) + "[]" -}}{%- else -%}{{- "any[]" -}}{%- endif -%}
    {%- elif spec.type is defined and spec.type is iterable and spec.type is not string and spec.type is not mapping and spec.type[0] is defined -%}
        {{- spec.type | join(" | ") -}}
    {%- elif spec.type == "string" -%}
        {%- if spec.enum -%}{{- '"' + spec.enum | join('" | "') + '"' -}}{%- else -%}{{- "string" -}}{%- endif -%}
    {%- elif spec.type == "number" or spec.type == "integer" -%}
        {%- if spec.enum -%}{{- spec.enum | join(' | ') -}}{%- else -%}{{- "number" -}}{%- endif -%}
    {%- elif spec.type == "object" -%}
        {%- if spec.properties -%}
            {{- "{\\n" -}}
            {%- for name, prop in spec.properties.items() -%}
                {{- name -}}{%- if name not in (spec.required or []) -%}{{- "?" -}}{%- endif -%}{{- ": " -}}{{ render_type(prop) }}
                {%- if not loop.last -%}{{- ", " -}}{%- endif -%}
            {%- endfor -%}
            {{- "}" -}}
        {%- else -%}{{- "object" -}}{%- endif -%}
    {%- else -%}{{- "any" -}}{%- endif -%}
    {%- if is_nullable -%}{{- " | null" -}}{%- endif -%}
{%- endmacro -%}
{%- macro render_tools(namespace_name, tools) -%}
    {{- "namespace " + namespace_name + " {\\n\\n" }}
    {%- for tool in tools %}
        {%- set tool = tool.function %}
        {{- "// " + tool.description + "\\n" }}
        {{- "type " + tool.name + " = (_: {\\n" }}
        {%- if tool.parameters and tool.parameters.properties %}
            {%- for name, spec in tool.parameters.properties.items() %}
                {%- if spec is mapping and spec.description is defined and spec.description %}{{- "// " + spec.description + "\\n" }}{%- endif %}
                {{- name }}
                {%- if name not in (tool.parameters.required or []) %}{{- "?" }}{%- endif %}
                {{- ": " + render_type(spec) }}
                {%- if spec.default is defined %}
                    {%- if spec.enum %}{{- ", // default: " + spec.default }}{%- elif spec.default is string %}{{- ', // default: "' + spec.default + '"' }}{%- else %}{{- ", // default: " + spec.default | tojson }}{%- endif %}
                {%- endif %}
                {{- ",\\n" }}
            {%- endfor %}
        {%- endif %}
        {{- "}) => any;\\n\\n" }}
    {%- endfor %}
    {{- "} // namespace " + namespace_name }}
{%- endmacro -%}
{{- "<|start|>system<|message|>Reasoning: " + (reasoning_effort or "medium") + "\\nCurrent date: " + strftime_now("%Y-%m-%d") + "<|end|>" }}
{%- if tools -%}{{- "<|start|>developer<|message|># Tools\\n\\n" + render_tools("functions", tools) + "<|end|>" }}{%- endif -%}
{%- set last = namespace(tool=none) %}
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {%- if "tool_calls" in message -%}
            {%- set call = message.tool_calls[0].function %}
            {{- "<|start|>assistant to=functions." ~ call.name ~ "<|message|>" + (call.arguments | tojson) + "<|call|>" }}
            {%- set last.tool = call.name %}
        {%- else -%}
            {{- "<|start|>assistant<|channel|>final<|message|>" + (message.content or "") + "<|end|>" }}
            {%- set last.tool = none %}
        {%- endif -%}
    {%- elif message.role == 'tool' -%}
        {%- if last.tool is none %}{{- raise_exception("Message has tool role, but there was no previous assistant message with a tool call!") }}{%- endif %}
        {{- "<|start|>functions." + last.tool + " to=assistant<|message|>" + message.content | tojson + "<|end|>" }}
    {%- elif message.role == 'user' -%}
        {{- "<|start|>user<|message|>" ~ message.content ~ "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}
""",
    "joined": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, system='') %}
{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system = ns.system + message['content'] %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system }}
{%- for message in messages %}
{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{ '<｜User｜>' ~ message['content'] }}{%- endif %}
{%- if message['role'] == 'assistant' and message['tool_calls'] is defined and message['tool_calls'] is not none %}
{%- for tool in message['tool_calls'] %}{{ '<｜tool｜>' + tool['type'] + '\\n' + tool['function']['name'] + '\\n```json\\n' + tool['function']['arguments'] | tojson + '\\n```' }}{%- endfor %}{{ '<｜end｜>' }}
{%- elif message['role'] == 'assistant' %}{% set content = message['content'] or '' %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{ '<｜Assistant｜>' + content + '<｜end｜>' }}{%- endif %}
{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{{ '<｜out｜>' + message['content'] }}{%- endif %}
{%- endfor -%}
{% if ns.is_tool %}{{ '<｜outs｜>' }}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{ '<｜Assistant｜>' }}{% endif %}""",
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def outcome(render):
    try:
        return {"text": render()}
    except Refused as e:
        return {"refused": str(e)}
    except (jinja2.exceptions.UndefinedError, jinja2.exceptions.TemplateError, TypeError) as e:
        return {"error": type(e).__name__}


def main():
    env = environment()
    expressions = []
    for line in EXPRESSIONS:
        for part in split_top(line):
            source = "{{ " + part + " }}"
            expressions.append({"template": source} | outcome(lambda: env.from_string(source).render(**VARIABLES)))
    snippets = [{"template": s} | outcome(lambda: env.from_string(s).render(**VARIABLES)) for s in SNIPPETS + REFUSALS]
    families = {}
    for name, source in TEMPLATES.items():
        runs = []
        for chat_name, chat in CHATS.items():
            for variant, extra in {"plain": {"add_generation_prompt": True}, "closed": {"add_generation_prompt": False}, "tools": {"add_generation_prompt": True, "tools": TOOLS},
                                   "quiet": {"add_generation_prompt": True, "enable_thinking": False, "date_string": "1 Jan 2000", "reasoning_effort": "low"}}.items():
                variables = {"messages": chat, "tools": None, "documents": None} | TOKENS | extra
                runs.append({"messages": chat, "extra": extra} | outcome(lambda: env.from_string(source).render(**variables)))
        families[name] = {"template": source, "runs": runs}
    data = {"now": NOW, "tokens": TOKENS, "variables": VARIABLES, "templates": expressions + snippets, "families": families}
    (HERE / "templates.json").write_text(json.dumps(data, ensure_ascii=True, indent=0, separators=(",", ":")) + "\n")


def split_top(line):
    """Cuts at the commas that stand outside of brackets and quotes."""
    parts, depth, quote, start, i = [], 0, None, 0, 0
    while i < len(line):
        c = line[i]
        if quote:
            if c == "\\":
                i += 1
            elif c == quote:
                quote = None
        elif c in "'\"":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(line[start:i].strip())
            start = i + 1
        i += 1
    return parts + [line[start:].strip()]


main()
