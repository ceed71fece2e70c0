#compdef lotr-tui
# Completion of lotr-tui in zsh.
# In ~/.zshrc, after compinit:  eval "$(lotr-tui completion zsh)"
# Or once:  lotr-tui completion zsh > "${fpath[1]}/_lotr-tui"

_lotr-tui() {
    local line program=lotr-tui
    local -a lines whole partial fields
    (( $+commands[lotr-tui] )) || program=@PROGRAM@
    lines=("${(@f)$(command $program __complete zsh $((CURRENT - 2)) \
        "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" "${(@Q)words[CURRENT+1,-1]}" 2> /dev/null < /dev/null)}")
    for line in $lines; do
        case $line in
            c*) whole+=("${line#c}") ;;
            p*) partial+=("${line#p}") ;;
            f*)
                fields=("${(@s: :)${line#f}}")
                compset -p $fields[1]
                _files ${fields[2,-1]:#}
                return
                ;;
        esac
    done
    local result=1
    # Only words that match are listed, also in another case where no word matches exactly.
    local -a options=(-M 'm:{[:lower:][:upper:]}={[:upper:][:lower:]}')
    (( $#whole )) && _describe -V 'lotr-tui' whole $options && result=0
    (( $#partial )) && _describe -V 'lotr-tui' partial -S '' $options && result=0
    return result
}

if [[ $funcstack[1] == _lotr-tui ]]; then
    _lotr-tui "$@"
elif (( $+functions[compdef] )); then
    compdef _lotr-tui lotr-tui
else
    print -u2 'lotr-tui: load compinit before the completion (autoload -Uz compinit && compinit)'
fi
