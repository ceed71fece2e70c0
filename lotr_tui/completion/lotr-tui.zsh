#compdef lotr-tui
# Completion of lotr-tui in zsh. In ~/.zshrc, after compinit:  eval "$(lotr-tui completion zsh)"
_lotr-tui() {
    local line
    local -a whole partial
    for line in "${(@f)$(COLUMNS=999 _LOTR_TUI_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
        _TYPER_COMPLETE_ARGS="${(j: :)words[1,CURRENT-1]} $QIPREFIX$PREFIX" command ${(Q)words[1]} 2> /dev/null < /dev/null)}"; do
        line=${${${line//\\/\\\\}//:/\\:}/$'\t'/:}
        case ${line%%:*} in
            '') ;;
            *=) partial+=($line) ;;
            *) whole+=($line) ;;
        esac
    done
    [[ $PREFIX == --*=* ]] && compset -p $((${#PREFIX%%\=*} + 1))
    if ((! $#whole && ! $#partial)); then
        compset -P '(hf|gguf):'
        _files
        return
    fi
    _describe -V lotr-tui whole -- partial -S ''
}

if [[ $funcstack[1] == _lotr-tui ]]; then _lotr-tui "$@"; else compdef _lotr-tui lotr-tui; fi
