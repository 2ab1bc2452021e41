"""The expression language of steering files: ``$steering(seed)``, ``$eval(2*$(n))``, ``$sprintf("%06d",$(job))``.

    lexer       text -> tokens with columns; a backslash makes the next character literal
    parser      tokens -> a sentence: texts and phrases, with their subscripts
    context     where names are found: arguments, scopes, steering, system, options, metadata, environment
    functions   sprintf, choice, sum, min, max, len, templates of metadata
    arithmetic  $eval: our own evaluator over Python's syntax tree, with a budget
    typed       the final text -> JSON, booleans, integers, floats, or text
    evaluate    innermost first, again until nothing changes; unresolved phrases stay as they stand

Everything is pure: equal inputs give equal outputs, on every machine.  Deliberately absent: a way to run code, to
read a file or an environment, or to draw a random number.
"""
