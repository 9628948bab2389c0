# What an octet may be part of: one table for all that read or write HTTP. Constants and inline functions only.

from libc.stdint cimport uint8_t


cdef extern from *:
    """
    enum {
        IN_TOKEN = 1,
        IN_VALUE = 2,
        IN_QUOTED = 4,
        IN_HOST = 8,
        IN_HEX = 16,
        IS_UNDERSCORE = 32,
    };
    #define IS_DIGIT(c) ((c) >= '0' && (c) <= '9')
    #define IS_LETTER(c) (((c) >= 'a' && (c) <= 'z') || ((c) >= 'A' && (c) <= 'Z'))
    #define IS_HEX(c) (IS_DIGIT(c) || ((c) >= 'a' && (c) <= 'f') || ((c) >= 'A' && (c) <= 'F'))
    #define IS_SHARED(c) ((c) == '!' || (c) == '$' || (c) == '&' || (c) == '\\'' || (c) == '*' || (c) == '+' \\
                          || (c) == '-' || (c) == '.' || (c) == '_' || (c) == '~')
    #define IS_TOKEN(c) (IS_DIGIT(c) || IS_LETTER(c) || IS_SHARED(c) \\
                         || (c) == '#' || (c) == '%' || (c) == '^' || (c) == '`' || (c) == '|')
    #define IS_HOST(c) (IS_DIGIT(c) || IS_LETTER(c) || IS_SHARED(c) \\
                        || (c) == '(' || (c) == ')' || (c) == ';' || (c) == '=')
    #define IS_VALUE(c) ((c) == 9 || ((c) >= 32 && (c) != 127))
    #define KINDS(c) ((IS_TOKEN(c) ? IN_TOKEN : 0) | (IS_VALUE(c) ? IN_VALUE : 0) \\
                      | (IS_VALUE(c) && (c) != '"' && (c) != '\\\\' ? IN_QUOTED : 0) \\
                      | (IS_HOST(c) ? IN_HOST : 0) | (IS_HEX(c) ? IN_HEX : 0) | ((c) == '_' ? IS_UNDERSCORE : 0))
    #define FOUR(c) KINDS(c), KINDS((c) + 1), KINDS((c) + 2), KINDS((c) + 3)
    #define SIXTEEN(c) FOUR(c), FOUR((c) + 4), FOUR((c) + 8), FOUR((c) + 12)
    static const uint8_t octet_kinds[256] = {
        SIXTEEN(0), SIXTEEN(16), SIXTEEN(32), SIXTEEN(48), SIXTEEN(64), SIXTEEN(80), SIXTEEN(96), SIXTEEN(112),
        SIXTEEN(128), SIXTEEN(144), SIXTEEN(160), SIXTEEN(176), SIXTEEN(192), SIXTEEN(208), SIXTEEN(224), SIXTEEN(240),
    };
    """
    enum: IN_TOKEN          # RFC 9110, 5.6.2
    enum: IN_VALUE          # field value, horizontal tab and obs-text included (RFC 9110, 5.5)
    enum: IN_QUOTED         # qdtext of RFC 9110, 5.6.4
    enum: IN_HOST           # reg-name of RFC 3986, 3.2.2, without "%" and ","
    enum: IN_HEX
    enum: IS_UNDERSCORE
    const uint8_t octet_kinds[256]


cdef inline bint is_digit(uint8_t octet) noexcept nogil:
    return octet >= c'0' and octet <= c'9'


cdef inline bint is_blank(uint8_t octet) noexcept nogil:
    return octet == c' ' or octet == c'\t'
